"""The Hugging Face Hub: ids of models there, downloads, and its errors in one sentence."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

from boxel.utils.errors import BoxelError, naming_extra, one_line

NEEDED = ("config.yaml", "categories.json", "model.safetensors")
"""The files that every model folder has."""

READ = (*NEEDED, "score_thresholds.json", "quality.json", "crf.yaml")
"""All files of a model folder that are read, none of which is executed; nothing else is downloaded."""

_ID = re.compile(r"(\w[\w.-]*/\w[\w.-]*)(?:@(\w[\w./-]*))?")
_FILES = {*(".json", ".yaml", ".yml", ".txt", ".csv", ".xml", ".parquet", ".zip"), *(".pt", ".pth", ".onnx")}

_downloaded: dict[str, Path] = {}


class HubId(NamedTuple):
    """A model on the hub, written `owner/name` or `owner/name@revision`."""

    repo: str
    revision: str | None  # a branch, a tag or a commit; None for the newest


def split_hub_id(text: str) -> HubId | None:
    """Return the parts of a text of the form `owner/name` or `owner/name@revision`; None if it has another form.

    Examples:
        >>> split_hub_id("anna/pigs")
        HubId(repo='anna/pigs', revision=None)
    """
    match = _ID.fullmatch(text)
    return HubId(match[1], match[2]) if match else None


def parse_hub_id(source: str | Path) -> HubId | None:
    """Return the model on the hub that a source names; None if it is a path.

    A source without a revision is a path if its first part is a folder here, or if it ends like a file.

    Examples:
        >>> parse_hub_id("anna/pigs@v1")
        HubId(repo='anna/pigs', revision='v1')
        >>> parse_hub_id("boxcaseg") or parse_hub_id("results/pigs.json")
    """
    path = Path(source)
    found = split_hub_id(path.as_posix())
    if found is None or path.exists() or path.suffix.lower() in _FILES:
        return None
    return None if found.revision is None and path.parent.is_dir() else found


@naming_extra("a model on the Hugging Face Hub")
def hub_folder(source: str | Path) -> Path | None:
    """Return the folder of a model on the hub, downloaded once per process; None if the source is a path."""
    if parse_hub_id(source) is None:
        return None
    return _downloaded.get(Path(source).as_posix()) or download(source)


def forget(repo: str) -> None:
    """Look for a model on the hub again when it is used next, since it has changed."""
    _downloaded.pop(repo, None)


def download(source: str | Path) -> Path:
    """Download what is new of the files in :data:`READ` of a model on the hub into the client's cache.

    A private model needs the token of the client: the variable `HF_TOKEN`, or that of `hf auth login`. Without a
    network, what the cache has is used.

    Returns:
        Its folder.

    Raises:
        BoxelError: The model cannot be found, is not one of boxel, or is not in the cache while the network is down.
    """
    from huggingface_hub import hf_hub_download, snapshot_download
    from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError

    name = Path(source).as_posix()
    found = parse_hub_id(source)
    assert found is not None
    lost = f"{name} is not a folder, and {{}}; check the name and the network, or copy the folder of the model here."
    with hub_errors(name, lost), hub_or_cache():
        try:  # first, as the weights of a model that is not one of boxel may have many gigabytes
            config = hf_hub_download(found.repo, NEEDED[0], revision=found.revision)
        except LocalEntryNotFoundError:
            raise
        except EntryNotFoundError:
            raise _other_model(name, NEEDED[0]) from None
        commit = Path(config).parent.name
        folder = Path(snapshot_download(found.repo, revision=commit, allow_patterns=list(READ)))
    for file in NEEDED:
        if not (folder / file).is_file():
            raise _other_model(name, file)
    _downloaded[name] = folder
    return folder


def _other_model(name: str, missing: str) -> BoxelError:
    return BoxelError(
        f"{name}: the model on the Hugging Face Hub is not one of boxel: it has no {missing}; give the id of a model "
        "that `boxel push` has uploaded."
    )


@contextmanager
def hub_errors(name: str, lost: str) -> Iterator[None]:
    """Raise a :class:`BoxelError` for any error of the client.

    Neither the message nor the traceback of ``--debug`` has the client's error, which may quote the token.

    Args:
        name: What is downloaded or uploaded, for messages.
        lost: The message if the network is down, with `{}` for the reason.
    """
    from huggingface_hub import constants, errors

    hub, login = constants.ENDPOINT, "log in with `hf auth login`, or set HF_TOKEN"
    try:
        yield
        return
    except BoxelError:
        raise
    except errors.GatedRepoError:
        text = f"{name}: its owner must grant access first; ask for it on {hub}/{name.partition('@')[0]}, and {login}."
    except errors.RepositoryNotFoundError:
        text = (
            f"{name} is neither a folder nor a model on the Hugging Face Hub that your token may read; check the name, "
            f"and if it is private, {login}."
        )
    except errors.RevisionNotFoundError:
        text = f"{name}: the model has no such revision; name a branch, a tag or a commit that is on {hub}."
    except errors.HFValidationError as error:
        text = f"{name}: the Hugging Face Hub has no such names ({_without_token(error)}); give owner/name."
    except (ConnectionError, errors.LocalEntryNotFoundError) as error:
        text = lost.format(_no_network(hub, error))
    except errors.HfHubHTTPError as error:
        text = _refusal(name, error.response.status_code, _without_token(error), login)
    except Exception as error:  # the client's own type of a lost connection depends on its version
        is_lost = any(word in type(error).__name__ for word in ("Connect", "Timeout", "Network", "Proxy"))
        plain = f"{name}: the Hugging Face Hub cannot be used ({_without_token(error)}); try again."
        text = lost.format(_no_network(hub, error)) if is_lost else plain
    raise BoxelError(text) from None


def _refusal(name: str, status: int, reason: str, login: str) -> str:
    """Return the sentence on a request that the hub refused."""
    if status == 401:
        return f"{name}: the Hugging Face Hub does not accept your token; {login}."
    if status == 403:
        return f"{name}: your token may not do this; use one with the permission to write to it."
    if status == 412:
        return f"{name} has changed on the Hugging Face Hub during the upload; look at it, and try again."
    return f"{name}: the Hugging Face Hub refuses ({reason}); try again later."


def _no_network(hub: str, error: Exception) -> str:
    return f"{hub} cannot be reached ({_without_token(error)})"


def _without_token(error: object) -> str:
    """Return the text of an error as one line, without the token, which a client may quote from a header."""
    from huggingface_hub import get_token

    text = re.sub(r"(Bearer |hf_)[^'\"]+", "[token]", str(error) or type(error).__name__)
    with suppress(Exception):
        token = get_token()
        text = text.replace(token, "[token]") if token else text
    return one_line(text, 300)


@contextmanager
def hub_or_cache() -> Iterator[None]:
    """Let the client of the hub use its cache alone if the hub cannot be reached, which it would retry for a minute."""
    from huggingface_hub import constants
    from huggingface_hub.errors import LocalEntryNotFoundError, OfflineModeIsEnabled
    from huggingface_hub.utils import get_session

    offline, unreachable = constants.HF_HUB_OFFLINE, None
    try:
        get_session().head(constants.ENDPOINT, timeout=10)
    except Exception as error:  # the type depends on the version of the client
        constants.HF_HUB_OFFLINE, unreachable = True, error
    try:
        yield
    except (LocalEntryNotFoundError, OfflineModeIsEnabled) as error:
        raise unreachable or error from None  # the reason why it is not in the cache either
    finally:
        constants.HF_HUB_OFFLINE = offline
