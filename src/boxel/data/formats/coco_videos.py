"""Videos of COCO files: ``videos`` with names, and images with a ``video_id`` and the number of their frame."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from boxel.data.formats.extras import decode_extras
from boxel.data.formats.names import guess_root, has_images
from boxel.utils.frames import is_video, name_frame

_NUMBERS = "frame_index", "frame_id", "frame"  # of TAO, of COCO-VID, and of boxel's results; all from 0
_NAMES = "file_name", "name", "path"


def find_frames(
    path: Path, images: Path | None, paths: Sequence[str], extras: Sequence[bytes | None], videos: bytes
) -> list[str]:
    """Return the names of the frames that the images of a file are; empty unless their videos are there.

    Args:
        path: The file.
        images: Folder of the images, if it is known.
        paths: The names of the images as the file states them.
        extras: The other fields of the images.
        videos: JSON of the videos.
    """
    try:
        rows = msgspec.json.decode(videos, type=list[dict[str, Any]])
    except msgspec.MsgspecError:
        return []
    named = {row.get("id"): name for row in rows for key in _NAMES if is_video(name := str(row.get(key, "")))}
    if not named:
        return []
    frames = [_name(named, decode_extras(fields)) or old for fields, old in zip(extras, paths, strict=True)]
    root = images or guess_root(path, frames).folder
    return frames if has_images(root, frames) and not has_images(root, paths) else []


def _name(videos: Mapping[Any, str], fields: Mapping[str, Any]) -> str:
    video = videos.get(fields.get("video_id"))
    number = next((fields[name] for name in _NUMBERS if name in fields), None)
    return name_frame(video, number) if video and isinstance(number, int) and number >= 0 else ""
