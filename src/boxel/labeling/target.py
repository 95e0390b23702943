"""The files that a labeling job writes, which a user may edit between two runs.

The store keeps a record of each output as it was written, and the edits of all runs. The next run

1. reads each output whose files have changed, and compares it with its record (`compare`, `collect`);
2. joins the edits of several outputs, and merges them with those of earlier runs (`join`, `merge`);
3. applies them to the dataset before it is labeled (`apply`), so that what a user has drawn stays as it is;
4. records what made the masks, and writes all outputs, each of which is recorded just before it takes its place.
"""

from __future__ import annotations

import logging
import shutil
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from hashlib import sha256
from pathlib import Path
from typing import Any

import msgspec

from boxel.data import Annotations, read
from boxel.data.digest import digest_data, digest_path
from boxel.data.formats import read_as_written, write_as_given
from boxel.data.formats.identity import IDS_FILE
from boxel.data.provenance import add_record, describe_run
from boxel.labeling.edits import Edited, Edits, apply, collect, describe, join, load_edits, merge
from boxel.labeling.outputs import (
    Changes,
    Output,
    compare,
    count_unreadable,
    find_other_changes,
    list_files,
    load_records,
    record,
    take_accepted,
)
from boxel.labeling.store import Store
from boxel.utils.errors import BoxelError, UsageError, one_line
from boxel.utils.files import atomic_path, remove_leftovers
from boxel.utils.printable import count_noun, name_some

logger = logging.getLogger(__name__)


@dataclass
class Target:
    """The outputs of a job, by format, and its store.

    Raises:
        UsageError: An output exists that the job has not written.
    """

    store: Store
    paths: dict[str, Path]
    overwrite: bool = False
    _seen: dict[str, str] = field(default_factory=dict)  # digest of each output at the start
    _records: dict[str, list[Output]] = field(default_factory=dict)  # of each output that has been written

    def __post_init__(self) -> None:
        for path in self.paths.values():
            remove_leftovers(path)
        found = {name: load_records(self.store, name) for name in self.store.output_names()}
        self._records = {name: records for name, records in found.items() if records}
        unknown = {name: path for name, path in self.paths.items() if name not in self._records}
        refuse_unknown(unknown, self.store.path, self.overwrite)

    def take_edits(self, data: Annotations) -> Edited:
        """Apply to a dataset what a user has edited in the outputs, now and before earlier runs."""
        self._seen = {name: digest_path(path) for name, path in self.paths.items() if path.exists()}
        if self.overwrite or not self.paths:
            return apply(data, Edits())
        changed = [name for name in self._seen if self._is_changed(name, self._seen[name])]
        found = {str(self.paths[name]): self._find_edits(name) for name in changed}
        self._mention_others()
        earlier = load_edits(self.store)
        if earlier:
            count = count_noun(len(earlier), "edit")
            logger.info("%s of earlier runs kept; `overwrite` discards them", count)
        written = self._records["coco"][-1] if "coco" in self._records else None
        taken = [*data.ids, *(written.ids if written else [])]
        edited = apply(data, merge(earlier, join(found), taken), written)
        # Masks of earlier runs may be bad after the dataset has changed.
        if problem := edited.describe_bad_masks():
            where = " and ".join(name for name, edits in found.items() if edits) or "earlier runs"
            raise BoxelError(
                f"{where}: edited masks cannot be used: {problem}; repair them, or discard all edits with `overwrite`."
            )
        return edited

    def _is_changed(self, name: str, digest: str) -> bool:
        return digest not in [output.digest for output in self._records[name]]

    def _find_edits(self, name: str) -> Edits:
        """Read an output that has changed since it was written, and return the changes."""
        path = self.paths[name]
        try:
            found = read(path, format=name)
        except BoxelError as error:
            raise BoxelError(
                f"{path}: it was edited since it was written and can no longer be read ({one_line(error)}); repair it, "
                "move it away, or discard it with `overwrite`."
            ) from error
        # After an interruption it is unknown which of two states was edited: the one that it is closer to.
        compared = ((compare(output, found), output) for output in self._records[name])
        changes, before = min(compared, key=lambda pair: len(pair[0]))
        if problem := find_problem(path, found, before, changes):
            raise BoxelError(
                f"{path}: it was edited since it was written, and {problem}, or discard it with `overwrite`."
            )
        if name == "label-studio" and changes.removed_images:  # it exports what has been annotated
            count = count_noun(len(changes.removed_images), "image")
            logger.info("%s: %s not annotated, or skipped, and left as before", path, count)
            changes.removed_images = []
        if name == "coco" and (lost := take_accepted(changes, before, found)):
            message = "%s: %s lost `source`, which the tool did not know; their other fields are as before"
            logger.warning(message, path, count_noun(lost, "mask"))
        if name == "coco" and (others := find_other_changes(before, found)):
            message = "%s: edits of %s are not kept; make them in the file of the boxes"
            logger.warning(message, path, name_some(others))
        elif not changes:
            logger.info("%s was saved again since it was written; its objects are the same", path)
        if changes:
            message = "%s was edited since it was written: %s; `overwrite` discards these edits"
            logger.warning(message, path, describe(changes, before, found))
        return collect(before, found, changes)

    def _mention_others(self) -> None:
        """Warn of an edited folder that an earlier run has written, and that this one does not write."""
        for name in self._records.keys() - self.paths.keys():
            path = folder_beside(self.paths["coco"], name)
            if path.is_dir() and self._is_changed(name, digest_path(path)):
                logger.warning("%s: its edits are not taken over; name %s in `to`", path, name)

    def add_provenance(
        self, data: Annotations, made_from: dict[str, str], settings: dict[str, Any]
    ) -> Annotations:
        """Record in the `info` of a dataset what made it.

        Command and date are those of the run that changed the dataset last, so that a job which is finished writes the
        same file again.
        """
        run = describe_run("boxel.label")
        made = {"version": run["version"], "input": made_from, "settings": settings}
        state = sha256(msgspec.json.encode([made, digest_data(data)])).hexdigest()
        known = self.store.get("provenance") or {}
        if known.get("state") != state:
            known = {"state": state, "made": run | made}
            self.store.put("provenance", known)
        return replace(add_record(data, known["made"]), file=str(self.paths["coco"]))

    def write(self, data: Annotations, edited: Edited) -> None:
        """Write the outputs, and record each before it takes its place, so that it is known after any interruption."""
        for name, path in self.paths.items():
            with atomic_path(path) as temporary:
                with naming_path(temporary, path):
                    write_as_given(data, temporary, name)
                files = list_files(temporary) if temporary.is_dir() else []
                before = self._records.get(name, [])
                digest = digest_path(temporary)
                output = next((output for output in before if output.digest == digest), None)
                if output is None:
                    output = record(
                        read_as_written(temporary, format=name), data, edited.origins, digest, files
                    )
                if temporary.is_dir() and before:
                    digest = _carry_files(path, temporary, before[-1].files) or digest
                if path.exists() and self._seen.get(name) != digest_path(path):
                    raise BoxelError(
                        f"{path}: it was edited while the job ran; give the same command again, which keeps the edits."
                    )
                self.store.add_output(name, digest, output, edited.edits)
            self.store.keep_output(name, digest)


def refuse_unknown(paths: Mapping[str, Path], store: Path | None, overwrite: bool) -> None:
    """Refuse to replace what no job is known to have written; with ``overwrite`` only folders of others."""
    for format, path in paths.items():
        if not path.exists():
            continue
        if format != "coco" and not (overwrite and (path / IDS_FILE).is_file()):
            raise UsageError(f"{path}: this folder exists already; remove it, or name another `out`.")
        if format == "coco" and not overwrite:
            known = store is not None and store.exists()
            reason = "does not know it" if known else "is not there"
            raise UsageError(
                f"{path}: this file exists, and the record of its job, {store}, {reason}; name a new file, remove this "
                "one, or replace it with `overwrite`."
            )


def folder_beside(target: Path, format: str) -> Path:
    """Return the folder of a format beside the COCO file."""
    return target.with_name(f"{target.stem}_{format}")


@contextmanager
def naming_path(temporary: Path, path: Path) -> Iterator[None]:
    """Name the path that is meant in errors and warnings about a temporary one."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            yield
        except BoxelError as error:
            error.args = (str(error).replace(str(temporary), str(path)),)
            raise
    for warning in caught:
        warnings.warn(str(warning.message).replace(str(temporary), str(path)), warning.category, stacklevel=4)


def _carry_files(old: Path, new: Path, own: Sequence[str]) -> str | None:
    """Copy what others have put into a folder into the new one; return its digest if there was any."""
    if not old.is_dir():
        return None
    others = [name for name in list_files(old) if name not in set(own) and not (new / name).exists()]
    for name in others:
        (new / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(old / name, new / name)
    return digest_path(new) if others else None


def find_problem(path: Path, found: Annotations, before: Output, changes: Changes) -> str:
    """State what is wrong with an output of which rows would be lost, and what to do; empty for any other."""
    if count_unreadable(found) > before.unreadable:
        first = next(issue.message for issue in found.issues if "left out" in issue.repair)
        return f"not all of it can be read (the first: {one_line(first, 200)}); repair it"
    if any(issue.kind == "no-class-names" for issue in found.issues):
        return "the list of its classes is gone; put it back"
    if not changes.unknown_images:
        return ""
    if IDS_FILE in before.files and not (path / IDS_FILE).is_file():
        return f"its {IDS_FILE}, by which images are recognized, is gone; put it back"
    images = name_some([found.paths[image] for image in changes.unknown_images])
    return (
        f"has objects in images that are not in the dataset, {images}; add them to the boxes, move them away"
    )
