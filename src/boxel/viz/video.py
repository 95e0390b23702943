"""Write drawings of images into a folder, and those of frames as videos."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType

import cv2
import numpy as np
from numpy.typing import NDArray

from boxel.data.video import scan_video
from boxel.utils.errors import UsageError
from boxel.utils.files import atomic_path
from boxel.utils.frames import is_video, split_frame
from boxel.viz.output import refuse_folder_of_images, same_file, save_image, warn_of_other_drawings

_CODECS = {".webm": "VP80", ".mp4": "mp4v", ".m4v": "mp4v", ".mov": "mp4v", ".mkv": "mp4v", ".avi": "mp4v"}
"""What OpenCV's wheels can encode. Browsers play only VP8 of these, which takes about ten times as long."""


class Drawings:
    """Writes drawings in the order of their images: files of images, and a video for the frames of each video.

    A video has the size of its source and lasts as long. It is complete when the next one begins, or at the end of the
    ``with`` block.

    Args:
        out: The folder, or the video if all images are frames of one; None to write nothing.
        images: The images and frames that are drawn.
        names: The file name of each drawing in the folder; those of frames are not used.
        every: Steps between the frames that are drawn, by which the frame rate is divided.

    Raises:
        UsageError: The drawings would replace an image, or a video cannot be written.
    """

    def __init__(
        self, out: Path | None, images: Sequence[Path], names: Sequence[str], every: int = 1
    ) -> None:
        self.out, self.images, self.every = out, images, every
        self._open, self._target, self._height = ExitStack(), Path(), 0
        frames = [split_frame(image) for image in images]
        videos = [Path(video) for video in dict.fromkeys(frame[0] for frame in frames if frame)]
        self._targets = [None if frame else name for frame, name in zip(frames, names, strict=True)]
        if out is None:
            return
        if is_video(out):
            if len(videos) != 1 or not all(frames):
                raise UsageError(
                    f"{out} is a video, and the images are not those of one video; name a folder."
                )
            targets = {videos[0]: out}
        else:
            refuse_folder_of_images(out, images, "draw")
            warn_of_other_drawings(out, [name for name in self._targets if name])
            stems = [video.stem for video in videos]
            full = len(set(stems)) < len(stems)
            targets = {video: out / _name_drawn(video, full) for video in videos}
        for video, target in targets.items():
            _check_target(target, video)
        self._videos = targets

    def __enter__(self) -> Drawings:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._open.__exit__(kind, error, trace)

    def write(self, drawn: NDArray[np.uint8], index: int) -> None:
        """Write the drawing of an image, (H or more, W, 3) uint8 RGB; a legend below a frame is cut off."""
        assert self.out is not None
        name, frame = self._targets[index], split_frame(self.images[index])
        if frame is None:
            save_image(drawn, self.out / str(name))
            return
        source = Path(frame[0])
        if self._target != self._videos[source]:
            self._open.close()
            self._start(source, drawn.shape[1])
        self._writer.write(cv2.cvtColor(drawn[: self._height], cv2.COLOR_RGB2BGR))

    def _start(self, source: Path, width: int) -> None:
        target, video = self._videos[source], scan_video(source)
        temporary = self._open.enter_context(atomic_path(target))
        codec = cv2.VideoWriter.fourcc(*_CODECS[target.suffix.lower()])
        rate, size = video.rate / self.every, (width, video.size[1])
        self._writer = cv2.VideoWriter(str(temporary), cv2.CAP_FFMPEG, codec, rate, size)
        self._open.callback(self._writer.release)
        self._target, self._height = target, video.size[1]


def _name_drawn(video: Path, full: bool) -> str:
    """Return the name of the drawing of a video; of a folder's several with one stem, that with all folders."""
    stem = video.as_posix().strip("/").replace("/", "_") if full else video.stem
    return f"{stem}.webm" if video.suffix.lower() == ".webm" else f"{stem}.mp4"


def _check_target(target: Path, source: Path) -> None:
    """Raise a `UsageError` for a video that cannot be written, or would replace its source."""
    if target.suffix.lower() not in _CODECS:
        kinds = ", ".join(sorted(_CODECS))
        raise UsageError(f"{target}: videos are written as {kinds}; end the name in one of these.")
    if same_file(target, source):
        raise UsageError(f"{target} is the video itself; name another file.")
