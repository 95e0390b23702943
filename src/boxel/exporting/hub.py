"""Share a trained model on the Hugging Face Hub, with a card, and without anything that is nobody else's business."""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PureWindowsPath
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from boxel import __version__
from boxel.crf.config import CRFConfig
from boxel.exporting.card import write_card
from boxel.models.io import load_folder, read_crf, save_config, write_crf
from boxel.models.thresholds import SCORE_THRESHOLDS, read_thresholds, write_thresholds
from boxel.utils.errors import BoxelError, UsageError, check_path, naming_extra, one_line
from boxel.utils.files import atomic_path, write_text
from boxel.utils.hub import READ, forget, hub_errors, split_hub_id

if TYPE_CHECKING:
    from huggingface_hub import HfApi
    from huggingface_hub.hf_api import ModelInfo

logger = logging.getLogger(__name__)

CARD, METRICS, RECORD, WEIGHTS = "README.md", "metrics.json", "run.json", "model.safetensors"
SHARED = (*READ, CARD, METRICS, RECORD)
"""All that is ever uploaded."""

_IN_RECORD = ("boxel", "date", "python", "method", "recipe", "seed", "device", "versions")
_COUNTS = ("images", "instances", "masks")
_NO_PATHS = {"backbone", "rename", "categories", "mask_classes"}
"""Settings whose texts may have a slash without being a path."""


@dataclass(frozen=True)
class Push:
    """What :func:`push_to_hub` has done; its text is for people.

    Attributes:
        repo: The model on the hub.
        files: The size of each file in bytes.
        address: Its page, or the folder of the files if they were written instead of uploaded.
        commit: The revision that holds them; None if nothing was uploaded.
    """

    repo: str
    files: dict[str, int]
    address: str
    commit: str | None = None

    def __str__(self) -> str:
        """Return what was done, and how to load the model."""
        if self.commit is None:
            return f"written to {self.address}, not uploaded: {_list(self.files)}"
        return f'{self.address}\nthis version: boxel.load("{self.repo}@{self.commit}")'


@naming_extra("boxel.push_to_hub")
def push_to_hub(
    run: str | Path,
    repo: str,
    *,
    private: bool = True,
    license: str | None = None,
    datasets: Sequence[str] = (),
    overwrite: bool = False,
    out: str | Path | None = None,
) -> Push:
    """Upload the model of a run to the Hugging Face Hub, from where :func:`boxel.load` takes it by its name.

    Uploaded are the weights, the settings, the classes, the metrics, the digests and counts of the data, and a model
    card, `README.md`, that is written from these unless the folder has one. Images, labels, checkpoints and paths are
    not. The token is that of the variable `HF_TOKEN` or of `hf auth login`.

    Args:
        run: The folder of a finished run.
        repo: `owner/name`; created if needed.
        private: Whether only the owner may see it. Must be that of a repository that exists.
        license: An identifier of the hub, e.g. `apache-2.0`; a public model needs one.
        datasets: Ids of datasets on the hub that the model was trained on, for its card.
        overwrite: Upload to a repository that has files already: those of a model are replaced or, if the run has none,
            removed; others stay, and so does the history.
        out: Folder to write the files to instead of uploading them.

    Returns:
        The files, and where they are.

    Raises:
        UsageError: `repo` is not of the form `owner/name`, or a public model has no license.
        BoxelError: The folder does not hold a model, the repository has files, or the hub refuses or cannot be reached.

    Examples:
        >>> print(boxel.push_to_hub("runs/boxinst", "anna/pigs", license="apache-2.0"))  # doctest: +SKIP
    """
    check_path("run", run)
    folder, name = Path(run), split_hub_id(repo)
    if name is None or name.revision:
        raise UsageError(f"`repo` is {repo!r}; give owner/name.")
    if not folder.is_dir():
        raise BoxelError(f"{folder}: there is no such folder; give the folder of a finished run.")
    if out is not None:
        with atomic_path(_check_unused(Path(out))) as target:
            target.mkdir()
            _write_shared(folder, target, repo, private, license, datasets)
            shutil.copyfile(folder / WEIGHTS, target / WEIGHTS)
        return Push(repo, _sizes(Path(out).iterdir()), str(out))
    with TemporaryDirectory() as temporary:
        target = Path(temporary)
        _write_shared(folder, target, repo, private, license, datasets)
        files = {file.name: file for file in (*target.iterdir(), folder / WEIGHTS)}
        address, commit = _upload(files, repo, private, overwrite)
        forget(repo)
        return Push(repo, _sizes(files.values()), address, commit)


def _check_unused(out: Path) -> Path:
    if out.exists() and not (out.is_dir() and not any(out.iterdir())):
        raise BoxelError(f"{out} exists and is not an empty folder; name another `out`.")
    return out


def _sizes(files: Any) -> dict[str, int]:
    return dict(sorted((file.name, file.stat().st_size) for file in files))


def _list(sizes: Mapping[str, int]) -> str:
    return ", ".join(
        f"{name} ({size / 1e6:.1f} MB)" if size >= 1e6 else f"{name} ({size / 1e3:.1f} kB)"
        for name, size in sizes.items()
    )


# ---------------------------------------------------------------- what is shared


def _write_shared(
    folder: Path, target: Path, repo: str, private: bool, license: str | None, datasets: Sequence[str]
) -> None:
    """Write what is shared of a run, all but the weights, into a folder."""
    model = load_folder(folder)
    model.settings = hide_paths(model.settings)
    beside = ("crf", SCORE_THRESHOLDS)  # in files of their own
    config = {name: value for name, value in model.settings.items() if name not in beside}
    save_config(target, config, model.categories)
    if crf := read_crf(folder):
        write_crf(CRFConfig(**crf), target)
    if thresholds := read_thresholds(folder):
        write_thresholds(thresholds, target)
    if (folder / "quality.json").is_file():
        shutil.copyfile(folder / "quality.json", target / "quality.json")
    metrics = {
        name: value for name, value in _read(folder / METRICS).items() if isinstance(value, int | float)
    }
    record = clean_record(_read(folder / RECORD))
    for name, content in ((METRICS, metrics), (RECORD, record)):
        if content:
            write_text(target / name, json.dumps(content, indent=1))
    card = folder / CARD
    if card.is_file():
        license = _read_license(card, license)
        shutil.copyfile(card, target / CARD)
    else:
        adapted = _read(folder / "adapted.json")
        write_text(target / CARD, write_card(repo, model, metrics, record, adapted, license, datasets))
    if not private and license is None:
        raise UsageError("a public model needs a license, e.g. apache-2.0; name it with `license`.")


def _read(file: Path) -> dict[str, Any]:
    """Return the object in a JSON file; empty if there is no such file."""
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, RecursionError) as error:
        raise BoxelError(f"{file} cannot be read ({one_line(error)}); restore it, or remove it.") from error
    return content if isinstance(content, dict) else {}


def _read_license(card: Path, license: str | None) -> str | None:
    """Return the license that a card states, which must be the given one, if any."""
    from huggingface_hub import ModelCard

    try:
        stated = ModelCard.load(card).data.license
    except Exception as error:  # YAML and the client each raise their own types
        raise BoxelError(
            f"{card}: its metadata cannot be read ({one_line(error, 200)}); correct it."
        ) from error
    if license not in (None, stated):
        raise UsageError(
            f"{card} states the license {stated}, and `license` is {license}; correct one of them."
        )
    return stated


def hide_paths(value: Any) -> Any:
    """Return settings in which only the last part of each path is left.

    Examples:
        >>> hide_paths({"init": "/home/anna/runs/first", "model": {"backbone": "resnet50.a1_in1k"}})
        {'init': 'first', 'model': {'backbone': 'resnet50.a1_in1k'}}
    """
    if isinstance(value, Mapping):
        return {name: inner if name in _NO_PATHS else hide_paths(inner) for name, inner in value.items()}
    if isinstance(value, list):
        return [hide_paths(inner) for inner in value]
    return PureWindowsPath(value).name if isinstance(value, str) else value  # knows both kinds of slashes


def clean_record(record: Mapping[str, Any]) -> dict[str, Any]:
    """Return what strangers may know of a run.json: versions, digests and counts, but no path, command or machine.

    Examples:
        >>> clean_record({"folder": "/home/anna", "inputs": {"data": {"path": "/home/anna/a.json", "sha256": "e3b0"}}})
        {'inputs': {'data': [{'sha256': 'e3b0'}]}}
    """
    kept = {name: record[name] for name in _IN_RECORD if name in record}
    if str(kept.get("recipe")).endswith((".yaml", ".yml")):
        kept["recipe"] = hide_paths(kept["recipe"])
    counts = {name: _counts(record[name]) for name in ("training", "validation") if record.get(name)}
    inputs = {
        name: [_counts(source, "sha256") for source in (given if isinstance(given, list) else [given])]
        for name, given in record.get("inputs", {}).items()
        if "sha256" in str(given)  # not the name of a model
    }
    return kept | ({"inputs": inputs} if inputs else {}) | counts


def _counts(source: Mapping[str, Any], *others: str) -> dict[str, Any]:
    return {name: source[name] for name in (*others, *_COUNTS) if name in source}


# ---------------------------------------------------------------- the hub


def _upload(files: Mapping[str, Path], repo: str, private: bool, overwrite: bool) -> tuple[str, str]:
    """Upload files in one commit; return the address of the repository, and the commit."""
    from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi, get_token

    api = HfApi(library_name="boxel", library_version=__version__)
    with hub_errors(repo, f"{repo}: nothing is uploaded, since {{}}; check the network."):
        if get_token() is None:
            raise BoxelError(
                f"{repo}: an upload needs a token; log in with `hf auth login`, or set HF_TOKEN to one that may write."
            )
        info = _open_repo(api, repo, private)
        there = {file.rfilename for file in info.siblings or []} - {".gitattributes"}
        if there and not overwrite:
            raise BoxelError(
                f"{repo} has files already ({', '.join(sorted(there)[:3])}{', ...' * (len(there) > 3)}); set "
                "`overwrite` to replace those of a model, or name another repository."
            )
        stale = sorted(there & set(SHARED) - files.keys())
        kind = "private" if private else "public"
        logger.info("uploading to %s, which is %s: %s", repo, kind, _list(_sizes(files.values())))
        done = api.create_commit(
            repo,
            [
                *(CommitOperationAdd(name, str(file)) for name, file in files.items()),
                *(CommitOperationDelete(name) for name in stale),
            ],
            commit_message=f"Model trained with boxel {__version__}",
            parent_commit=info.sha,  # so that nothing that came in between is overwritten
        )
    return f"{api.endpoint}/{repo}", done.oid


def _open_repo(api: HfApi, repo: str, private: bool) -> ModelInfo:
    """Return what is known of a repository, which is created if needed."""
    from huggingface_hub.errors import RepositoryNotFoundError

    try:
        info = api.model_info(repo)
    except RepositoryNotFoundError:
        api.create_repo(repo, private=private)
        return api.model_info(repo)
    if info.private != private:
        raise BoxelError(
            f"{repo} is {'private' if info.private else 'public'}, and `private` is {'on' if private else 'off'}; turn "
            f"it {'off' if private else 'on'}, or name another repository."
        )
    return info
