"""Draw the pictures of README and "Get started": photographs with their boxes, and with the masks of `BoxSegmenter`.

python docs/picture.py

The photographs are those of scikit-image's wheel (extra `demo`).
"""

from __future__ import annotations

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
ROWS = [["astronaut.png", "coffee.png"], ["camera.png", "chelsea.png"]]
HEIGHT, GAP = 360, 16  # pixels
PURPLE, WHITE = (98, 44, 160), (255, 255, 255)


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


def draw_pair(data: boxel.Annotations, image: int, segment: boxel.BoxSegmenter) -> list[NDArray[np.uint8]]:
    """Draw an image with the names of its boxes, then with the quality of its masks, and a gap after them."""
    pixels, own = read_image(data.image_path(image)), data.instances_in(image)
    result = segment(pixels, data.boxes[own])
    scale = HEIGHT / len(pixels)
    size = round(pixels.shape[1] * scale), HEIGHT
    small = cv2.resize(pixels, size, interpolation=cv2.INTER_AREA)
    masks = np.stack([cv2.resize(mask.astype(np.uint8), size) > 0 for mask in result.masks])
    boxes = data.boxes[own] * scale
    before, after = overlay(small, boxes), overlay(small, boxes, masks)
    for box, label, quality in zip(boxes, data.labels[own], result.quality, strict=True):
        write(before, box, data.categories[label].name)
        write(after, box, f"{quality:.2f}")
    gap = np.full((HEIGHT, GAP, 3), 255, np.uint8)
    return [before, gap[:, : GAP // 4], after, gap]


def write(canvas: NDArray[np.uint8], box: NDArray[np.float64], text: str) -> None:
    """Write a text into the upper left corner of a box, in place."""
    (width, height), base = cv2.getTextSize(text, cv2.FONT_HERSHEY_SIMPLEX, 0.7, 2)
    x, y = int(max(min(box[0], canvas.shape[1] - width - 10), 0)), int(max(box[1], 0))
    cv2.rectangle(canvas, (x, y), (x + width + 10, y + height + base + 8), PURPLE, cv2.FILLED)
    place = x + 5, y + height + 6
    cv2.putText(canvas, text, place, cv2.FONT_HERSHEY_SIMPLEX, 0.7, WHITE, 2, cv2.LINE_AA)


if __name__ == "__main__":
    main()
