"""What made a file or a run: the command, the version, the date, and the digests of what it was made from."""

from __future__ import annotations

import os
import platform
import shlex
from collections.abc import Sequence
from datetime import datetime, timezone
from hashlib import sha256
from importlib.metadata import version
from pathlib import Path
from typing import Any

_command: str | None = None


def set_command(words: Sequence[str] | None) -> None:
    """State the command that is running, for :func:`describe_origin`; None if it has ended."""
    global _command
    _command = None if words is None else shlex.join(["boxel", *words])


def describe_origin() -> dict[str, Any]:
    """Describe what is running, ready for JSON.

    Returns:
        `boxel`, its version; `command`, None in a program of the user; `folder`, where it was started; `date`, in UTC;
        `python` and `platform`.

    Examples:
        >>> sorted(describe_origin())
        ['boxel', 'command', 'date', 'folder', 'platform', 'python']
    """
    return {
        "boxel": version("boxel"),
        "command": _command,
        "folder": os.getcwd(),
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "python": platform.python_version(),
        "platform": platform.platform(),
    }


def digest_file(path: str | Path) -> str:
    """Return the SHA-256 of a file as hexadecimal digits.

    Examples:
        >>> import tempfile
        >>> with tempfile.NamedTemporaryFile() as file:
        ...     digest_file(file.name)[:8]
        'e3b0c442'
    """
    digest = sha256()
    with open(path, "rb") as file:
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()
