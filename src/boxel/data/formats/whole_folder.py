"""Write the folder of a dataset whole or not at all, also if the process is killed or the disk is full."""

from __future__ import annotations

import filecmp
from collections.abc import Callable
from pathlib import Path

from boxel.data.formats.identity import IDS_FILE
from boxel.utils.errors import BoxelError
from boxel.utils.files import atomic_path, not_written, remove_leftovers, scratch_folder

INCOMPLETE = ".boxel-incomplete"
"""File in a folder while files are moved into it."""


def write_folder(path: Path, write: Callable[[Path], list[str]]) -> list[str]:
    """Write a folder beside its place, and move it there once it is complete.

    What an earlier process left there when it was killed is removed. If the folder has other files already, the new
    ones are added to them; none is overwritten.

    Args:
        path: The folder.
        write: Writes into the folder that it is given, and returns sentences.

    Raises:
        BoxelError: There is a file in the place of the folder, or of one of its files another one.

    Examples:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     write_folder(Path(folder, "a"), lambda new: [str((new / "b.txt").write_text("text"))])
        ['4']
    """
    if path.is_file():
        raise BoxelError(f"{path}: cannot be written (it is a file); name a folder.")
    remove_leftovers(path)
    if not path.is_dir() or not any(path.iterdir()):
        with atomic_path(path) as temporary:
            temporary.mkdir(parents=True)
            sentences = write(temporary)
    else:
        with scratch_folder(path) as temporary:
            try:
                sentences = write(temporary)
                _merge(temporary, path)
            except OSError as error:
                name = str(error.filename or path).replace(str(temporary), str(path))
                raise not_written(name, error) from error
    return [sentence.replace(str(temporary), str(path)) for sentence in sentences]


def check_complete(path: Path) -> None:
    """Raise a `BoxelError` if a process was killed while it moved files into a folder."""
    folder = path if path.is_dir() else path.parent
    if (folder / INCOMPLETE).exists():
        raise BoxelError(
            f"{folder}: the dataset in this folder is incomplete, as writing it was interrupted; write it again."
        )


def _merge(new: Path, folder: Path) -> None:
    """Move all files of a folder into another, or none if one is there already with another content."""
    files = sorted(file.relative_to(new) for file in new.rglob("*") if not file.is_dir())
    mark = folder / INCOMPLETE
    # The ids of an interrupted conversion state its date, and are written again.
    own = {Path(IDS_FILE)} if mark.exists() else set()
    others = [file for file in files if (folder / file).exists() and file not in own]
    clashes = [file for file in others if not _same(new / file, folder / file)]
    if clashes:
        raise BoxelError(
            f"{folder / clashes[0]}: this file exists already ({len(clashes)} in all); name a new folder, or remove it."
        )
    mark.write_text("boxel is moving files into this folder\n")
    moved: list[Path] = []
    try:
        for file in files:
            if file not in others:
                (folder / file).parent.mkdir(parents=True, exist_ok=True)
                (new / file).rename(folder / file)
                moved.append(folder / file)
    except BaseException:
        for path in moved:
            path.unlink(missing_ok=True)
        mark.unlink()
        raise
    mark.unlink()


def _same(a: Path, b: Path) -> bool:
    return a.is_file() and b.is_file() and (a.samefile(b) or filecmp.cmp(a, b, shallow=False))
