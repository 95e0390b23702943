"""Make the video of "Videos" and draw its picture: a photograph under a moving window, with one noisy stretch.

python docs/video_picture.py FOLDER

FOLDER gets `clip.mp4` and `annotations.xml`, as CVAT for video writes it, with keyframes alone. It is the photograph of
the cat by Stefan van der Walt in scikit-image's wheel (extra `demo`).
"""

from __future__ import annotations

import sys
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

import boxel
from boxel.data import read_image
from boxel.data.samples import sample_images
from boxel.viz import overlay

IMAGES = Path(__file__).resolve().parent / "images"
COUNT, NOISY, SIZE = 25, range(11, 14), (360, 240)
SHOWN = 4, 8, 12, 16

XML = """<annotations><version>1.1</version><meta><task><id>1</id><mode>interpolation</mode>
<start_frame>0</start_frame><stop_frame>{stop}</stop_frame><labels><label><name>cat</name></label></labels>
<original_size><width>{width}</width><height>{height}</height></original_size><source>clip.mp4</source></task></meta>
<track id="0" label="cat">{shapes}</track></annotations>
"""


def main(folder: Path) -> None:
    """Make the video, label it with and without carrying, and draw both."""
    photo = sample_images().select_categories(["cat"])
    pixels, box = read_image(photo.image_path(int(photo.image_index[0]))), photo.boxes[0]
    random, shapes = np.random.default_rng(0), ""
    codec = cv2.VideoWriter.fourcc(*"mp4v")
    writer = cv2.VideoWriter(str(folder / "clip.mp4"), cv2.CAP_FFMPEG, codec, 12.0, SIZE)
    for number in range(COUNT):
        zoom, left, top = 0.78, 2.5 * number - 30, 8 - 0.8 * number
        motion = np.array([[zoom, 0, left], [0, zoom, top]])
        frame = cv2.warpAffine(pixels, motion, SIZE, borderMode=cv2.BORDER_REFLECT).astype(np.float32)
        if number in NOISY:
            frame = frame * 0.15 + random.normal(0, 22, frame.shape)
        writer.write(cv2.cvtColor(frame.clip(0, 255).astype(np.uint8), cv2.COLOR_RGB2BGR))
        if number in (0, COUNT - 1):
            x0, y0, x1, y1 = (box * zoom + [left, top] * 2).clip(0, [*SIZE, *SIZE]).round(1).tolist()
            sides = f'xtl="{x0}" ytl="{y0}" xbr="{x1}" ybr="{y1}"'
            shapes += f'<box frame="{number}" keyframe="1" outside="0" occluded="0" {sides}/>'
    writer.release()
    text = XML.format(stop=COUNT - 1, width=SIZE[0], height=SIZE[1], shapes=shapes)
    (folder / "annotations.xml").write_text(text)
    rows = [draw_row(boxel.label(folder, images=folder / "clip.mp4", carry=carry)) for carry in (False, True)]
    Image.fromarray(np.vstack(rows)).save(IMAGES / "video.jpg", quality=82)


def draw_row(data: boxel.Annotations) -> NDArray[np.uint8]:
    """Draw the masks of some frames side by side."""
    return np.hstack(
        [
            overlay(
                read_image(data.image_path(number)),
                data.boxes[[number]],
                [data.rle(number)],
                [0],
                ["cat"],
                data.quality[[number]],
            )
            for number in SHOWN
        ]
    )


if __name__ == "__main__":
    main(Path(sys.argv[1]))
