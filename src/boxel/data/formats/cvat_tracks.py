"""Tracks of CVAT for video 1.1: the shapes of an object in the frames of a video.

The format: https://docs.cvat.ai/docs/manual/advanced/xml_format/. CVAT writes a shape for each frame, also where it has
interpolated between keyframes; where a file has only keyframes, the boxes between them are interpolated here.
"""

from __future__ import annotations

import contextlib
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from boxel.data.formats.names import ImageFinder, stay_inside
from boxel.data.formats.xml_files import to_pixels
from boxel.utils.files import is_file
from boxel.utils.frames import is_video

MAX_FRAMES = 1_000_000
"""Maximum length of a video, nine hours: the boxes between two far apart would fill the memory."""

_SIDES = ("xtl", "ytl", "xbr", "ybr")


@dataclass(frozen=True)
class VideoTask:
    """A video as a task states it.

    Attributes:
        source: Name of the video, or of what else the task was made from.
        size: (width, height) of the frames; zeros if unknown.
        frames: The frames of the task, as numbers in the video; empty if unknown.
        step: Steps between them.
    """

    source: str = ""
    size: tuple[int, int] = (0, 0)
    frames: range = range(0)
    step: int = 1


def read_tasks(meta: ElementTree.Element) -> dict[str, VideoTask]:
    """Read the tasks that a file is about, by their ids; a job is a part of a task."""
    tasks = {}
    for task in [*meta.iter("task"), *meta.iter("job")]:
        width, height = (to_pixels(task.findtext(f"original_size/{side}")) for side in ("width", "height"))
        stated_step = (task.findtext("frame_filter") or "").replace(" ", "").removeprefix("step=")
        step = max(_number(stated_step, 1), 1)
        first = max(_number(task.findtext("start_frame"), 0), 0)
        frames = range(first, _number(task.findtext("stop_frame"), -1) + 1, step)
        source = stay_inside(task.findtext("source") or "")
        tasks[task.findtext("id") or ""] = VideoTask(source, (width, height), frames, step)
    return tasks


def choose_names(task: VideoTask, finder: ImageFinder, video: str) -> str:
    """Return the name of the video of a task, which the user may name; an empty text if its frames are files."""
    name = video or task.source
    if not is_video(name):
        return ""
    first = name_frame_file(task.frames[0] if task.frames else 0)
    return "" if finder.videos.find(name) is None and finder.find(first) else name


def name_frame_file(number: int) -> str:
    """Return the name that CVAT gives the image of a frame."""
    return f"frame_{number:06d}.PNG"


def find_folder(folder: Path, beside: Path, tasks: dict[str, VideoTask]) -> Path:
    """Return the folder of the videos of tasks: that of the images, unless the videos lie beside the file."""
    return beside if any(task.source and is_file(beside / task.source) for task in tasks.values()) else folder


def find_last(tasks: dict[str, VideoTask], tracks: Iterable[ElementTree.Element]) -> int:
    """Return the highest number of a frame."""
    shapes = (_number(shape.get("frame"), -1) for track in tracks for shape in track)
    return max([*shapes, *(task.frames.stop for task in tasks.values())], default=-1)


def iter_shapes(track: ElementTree.Element, step: int) -> Iterator[tuple[int, ElementTree.Element]]:
    """Yield the frame and the shape wherever the object of a track is in the image.

    Between two boxes the missing frames get interpolated boxes; a track ends with its last shape.
    """
    shapes = [(_number(shape.get("frame"), -1), shape) for shape in track if shape.get("frame")]
    shapes.sort(key=lambda pair: pair[0])
    for at, (frame, shape) in enumerate(shapes):
        if frame < 0 or shape.get("outside", "0") not in ("0", "false", "False"):
            continue
        yield frame, shape
        if at + 1 < len(shapes) and shape.tag == shapes[at + 1][1].tag == "box":
            end, other = shapes[at + 1]
            for between in range(frame + step, end, step):
                yield between, _interpolate(shape, other, (between - frame) / (end - frame))


def _interpolate(one: ElementTree.Element, other: ElementTree.Element, share: float) -> ElementTree.Element:
    between = ElementTree.Element("box", one.attrib | {"keyframe": "0"})
    between.extend(one)
    for side in _SIDES:
        with contextlib.suppress(ValueError):  # the shape itself is reported
            start, end = (float(box.get(side, "")) for box in (one, other))
            between.set(side, repr(start + share * (end - start)))
    return between


def _number(text: str | None, default: int) -> int:
    try:
        return int(text or default)
    except ValueError:
        return default
