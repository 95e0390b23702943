"""Draw the pictures of README and guides: photographs with their boxes, and with the masks of `BoxSegmenter`.

python docs/picture.py

The photographs are those of scikit-image's wheel (extra `demo`).
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

import boxel
from boxel.data import read_image
from boxel.data.samples import sample_images
from boxel.viz import draw_dataset, overlay

IMAGES = Path(__file__).resolve().parent / "images"
ROWS = [["astronaut.png", "coffee.png"], ["camera.png", "chelsea.png"]]
HEIGHT, GAP = 360, 16  # pixels


def main() -> None:
    """Write the pictures."""
    data, segment = sample_images(), boxel.BoxSegmenter()
    index = {Path(path).name: image for image, path in enumerate(data.paths)}
    rows = []
    for names in ROWS:
        cells = [cell for name in names for cell in draw_pair(data, index[name], segment)]
        rows.append(np.hstack(cells)[:, :-GAP])
    width = min(row.shape[1] for row in rows)
    top, bottom = (cv2.resize(row, (width, round(HEIGHT * width / row.shape[1]))) for row in rows)
    gap = np.full((GAP, width, 3), 255, np.uint8)
    Image.fromarray(np.vstack([top, gap, bottom])).save(IMAGES / "label.jpg", quality=82)
    first = segment(data.image_path(index["astronaut.png"]), [[20, 16, 364, 512]])
    Image.fromarray(first.plot()).save(IMAGES / "first_mask.jpg", quality=82)
    draw_sheet(data.select_images([index[name] for row in ROWS for name in row]))


def draw_sheet(data: boxel.Annotations) -> None:
    """Draw the contact sheet of "Draw a dataset": true masks beside those of `boxel label`."""
    with tempfile.TemporaryDirectory() as folder:
        boxel.write(data.without_masks(), f"{folder}/boxes.json")
        masks = boxel.label(f"{folder}/boxes.json", images=data.root, out=f"{folder}/masks.json")
        draw_dataset(masks, None, truth=data, worst=4, sheet=f"{folder}/sheet.png")
        sheet = Image.open(f"{folder}/sheet.png").convert("RGB")
        sheet.thumbnail((1080, 1080))
        sheet.save(IMAGES / "draw.jpg", quality=82)


def draw_pair(data: boxel.Annotations, image: int, segment: boxel.BoxSegmenter) -> list[NDArray[np.uint8]]:
    """Draw an image with the names of its boxes, then with the quality of its masks, and a gap after them."""
    pixels, own = read_image(data.image_path(image)), data.instances_in(image)
    result = segment(pixels, data.boxes[own])
    scale = HEIGHT / len(pixels)
    size = round(pixels.shape[1] * scale), HEIGHT
    small = cv2.resize(pixels, size, interpolation=cv2.INTER_AREA)
    masks = np.stack([cv2.resize(mask.astype(np.uint8), size) > 0 for mask in result.masks])
    boxes = data.boxes[own] * scale
    names = ["", *(category.name for category in data.categories)]
    labels = data.labels[own] + 1  # the colors of `boxel draw`
    before, after = (
        overlay(small, boxes, None, labels, names),
        overlay(small, boxes, masks, labels, names, result.quality),
    )
    gap = np.full((HEIGHT, GAP, 3), 255, np.uint8)
    return [before, gap[:, : GAP // 4], after, gap]


if __name__ == "__main__":
    main()
