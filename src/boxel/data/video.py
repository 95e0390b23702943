"""Videos as images: their frames are decoded one at a time, in order or any one again.

A frame is known by the number of frames that are decoded before it, which needs no trust in the header of the file or
in a constant frame rate.
"""

from __future__ import annotations

import os
import threading
from bisect import bisect_left
from collections import OrderedDict
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from boxel.utils.frames import name_frame, split_frame

os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")  # damage is reported once, in a sentence

_NEAR = 64  # frames ahead up to which decoding is not slower than seeking
_MAX_OPEN = 2  # videos per thread
_lock = threading.Lock()
_local = threading.local()


@dataclass(frozen=True)
class Video:
    """What decoding a video once has shown.

    Attributes:
        size: (width, height) of the upright frames in pixels.
        rate: Frames per second.
        times: Time of each frame that can be decoded, in seconds, rising.
        stated: Number of frames that the header states, or about that.
    """

    size: tuple[int, int]
    rate: float
    times: NDArray[np.float64]
    stated: int

    @property
    def problem(self) -> str:
        """What is wrong if the video ends before its header states; empty if nothing is."""
        missing = self.stated - len(self.times)
        last = self.times[-1] if len(self.times) else 0.0
        if missing < 2 or last + 1.5 / self.rate >= self.stated / self.rate:
            return ""
        return (
            f"its header states {self.stated} frames, and {len(self.times)} can be decoded: it is cut or damaged "
            f"after {last:.2f} s; the frames before that are used"
        )


def scan_video(path: str | os.PathLike[str]) -> Video:
    """Decode a video once, and keep only the time of each frame.

    Raises:
        OSError: It cannot be opened.

    Examples:
        >>> video = scan_video("clip.mp4")  # doctest: +SKIP
        >>> len(video.times), video.rate  # doctest: +SKIP
        (250, 25.0)
    """
    status = os.stat(path)
    with _lock:  # one thread decodes it, and the others wait
        return _scan(os.fspath(path), status.st_size, status.st_mtime_ns)


@lru_cache(maxsize=32)
def _scan(path: str, size: int, modified: int) -> Video:
    capture = _open(path)
    times = []
    while capture.grab():
        times.append(capture.get(cv2.CAP_PROP_POS_MSEC) / 1000)
    width, height = (int(capture.get(p)) for p in (cv2.CAP_PROP_FRAME_WIDTH, cv2.CAP_PROP_FRAME_HEIGHT))
    rate, stated = capture.get(cv2.CAP_PROP_FPS), capture.get(cv2.CAP_PROP_FRAME_COUNT)
    rate = rate if 0 < rate < 1000 else 25.0
    return Video((width, height), rate, np.array(times), max(int(stated), 0))


def list_frames(path: Path, every: int = 1) -> tuple[list[Path], str]:
    """Return the names of the frames of a video, every so many from the first, and what is wrong with it."""
    try:
        video = scan_video(path)
    except OSError as error:
        return [], f"skipped: {path}: {error}."
    frames = [Path(name_frame(path, number)) for number in range(0, len(video.times), every)]
    return frames, video.problem and f"{path}: {video.problem}."


def read_frame(path: str, number: int) -> NDArray[np.uint8]:
    """Decode a frame: (H, W, 3) uint8 RGB, upright.

    The next frames are decoded from where the thread has been; any other is found by its time, once the video has been
    decoded to its end.

    Raises:
        OSError: The video cannot be opened.
        EOFError: It has no such frame.
    """
    status = os.stat(path)
    key = path, status.st_size, status.st_mtime_ns
    readers: OrderedDict[object, _Reader] = _local.__dict__.setdefault("readers", OrderedDict())
    if key not in readers:
        readers[key] = _Reader(path)
    readers.move_to_end(key)
    if len(readers) > _MAX_OPEN:
        readers.popitem(last=False)
    return readers[key].read(number)


def frame_fields(path: Path) -> dict[str, int | float]:
    """Return the number of a frame and its time in seconds as fields of a file; none if it is not a frame."""
    frame = split_frame(path)
    if frame is None:
        return {}
    return {"frame": frame[1], "time": round(float(scan_video(frame[0]).times[frame[1]]), 4)}


class _Reader:
    """A video that is open at a frame."""

    def __init__(self, path: str) -> None:
        self.path, self.capture = path, _open(path)
        self.count = 0  # frames before the next

    def read(self, number: int) -> NDArray[np.uint8]:
        if not self.count - 1 <= number < self.count + _NEAR:
            self._seek(number)
        while self.count <= number:
            if not self.capture.grab():
                raise EOFError(f"the video ends after {self.count} frames")
            self.count += 1
        ok, pixels = self.capture.retrieve()
        if not ok:
            raise OSError(f"frame {number} cannot be decoded")
        return np.asarray(cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB), dtype=np.uint8)

    def _seek(self, number: int) -> None:
        """Go to a frame, or to one shortly before it; the times of the frames show where that is."""
        times = scan_video(self.path).times
        if number >= len(times):
            raise EOFError(f"the video ends after {len(times)} frames")
        self.capture.set(cv2.CAP_PROP_POS_MSEC, times[number] * 1000)
        if self.capture.grab():
            time = self.capture.get(cv2.CAP_PROP_POS_MSEC) / 1000
            landed = bisect_left(times, time - 1e-6)
            around = times[max(landed - 1, 0) : landed + 2]
            if landed <= number and np.count_nonzero(np.abs(around - time) < 1e-6) == 1:
                self.count = landed + 1
                return
        self.capture, self.count = _open(self.path), 0  # decoded again from its start


def _open(path: str) -> cv2.VideoCapture:
    level = cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
    capture = cv2.VideoCapture(path, cv2.CAP_FFMPEG)
    cv2.utils.logging.setLogLevel(level)
    if not capture.isOpened():
        raise OSError(
            "the video cannot be opened: it is not a video, of an unknown kind, or cut before its index"
        )
    return capture
