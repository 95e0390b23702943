"""Names of the frames of a video: ``clip.mp4#000123`` is the frame of ``clip.mp4`` with 123 frames before it."""

from __future__ import annotations

import os
import re
from pathlib import PurePath

from boxel.utils.tars import split_member

VIDEO_SUFFIXES = frozenset({".mp4", ".m4v", ".mov", ".avi", ".mkv", ".webm", ".mpg", ".mpeg", ".wmv", ".3gp"})
"""Suffixes, in lower case, of the files that are taken for videos."""

_FRAME = re.compile(r"(.+)#(\d{1,9})", re.DOTALL)


def is_video(path: str | os.PathLike[str]) -> bool:
    """Return whether a path has the suffix of a video."""
    return PurePath(path).suffix.lower() in VIDEO_SUFFIXES


def name_frame(video: str | os.PathLike[str], number: int) -> str:
    """Return the name of a frame, counted from 0."""
    return f"{os.fspath(video)}#{number:06d}"


def split_frame(path: str | os.PathLike[str]) -> tuple[str, int] | None:
    """Return the video of a frame and its number; None for anything but the name of a frame.

    Examples:
        >>> split_frame("clips/a.mp4#000012"), split_frame("photo#1.jpg")
        (('clips/a.mp4', 12), None)
    """
    text = os.fspath(path)
    match = _FRAME.fullmatch(text) if "#" in text else None
    return (match[1], int(match[2])) if match and is_video(match[1]) else None


def stored_in(path: str | os.PathLike[str]) -> str:
    """Return the file that an image is stored in: the video of a frame, the tar file of a member, or the image."""
    holder = split_frame(path) or split_member(path)
    return holder[0] if holder else os.fspath(path)


def frame_stem(name: str) -> str | None:
    """Return a name without suffix for the files of a frame, as of an image its stem; None if it is not a frame.

    Examples:
        >>> frame_stem("clips/a.mp4#000012")
        'a_000012'
    """
    frame = split_frame(name)
    return f"{PurePath(frame[0]).stem}_{frame[1]:06d}" if frame else None
