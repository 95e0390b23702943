"""The labels of three photographs from update to update, while BoxSup learns from them and from COCO boxes (Figure 3).

    python benchmarks/boxsup_photo.py --out runs/boxsup_photo

The photographs are those of scikit-image; only their boxes are learned from. Trains `boxsup-small --label segments` on
them together with the 455 COCO training images. Prints after each update the IoU of each photograph's labels with its
hand-drawn outline, which is used for nothing else, and draws the updates that --updates names, always including the
last one.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from _record import Table, arguments
from _runs import read_coco
from boxsup_coco import VOC

import boxel
from boxel.data import Annotations
from boxel.data.images import read_image
from boxel.data.joining import join
from boxel.data.samples import write_sample_images
from boxel.training.boxsup import BoxSupTask
from boxel.viz.output import contact_sheet, save_image
from boxel.viz.overlays import overlay_labels

PHOTOS = {"astronaut.png": "person", "chelsea.png": "cat", "motorcycle_left.png": "motorcycle"}


def main() -> None:
    """Train, print the segments' IoU and draw the labels."""
    parser = arguments(__doc__, data=True)
    parser.add_argument("--out", type=Path, default=Path("runs/boxsup_photo"))
    parser.add_argument("--recipe", default="boxsup-small")
    parser.add_argument("--updates", type=int, nargs="+", default=[1, 5])
    args = parser.parse_args()
    photos = outlined(args.out / "photos")
    coco = read_coco(args.data, "train_boxes")
    training = join([coco.select_categories(VOC), photos.without_masks()])
    shown: dict[int, list[Any]] = {}

    def draw(task: BoxSupTask) -> None:
        dataset, names = task.dataset, [category.name for category in task.model.categories]
        shown[task.updates], ious = [], []
        for k in range(len(photos)):
            image = len(training) - len(photos) + k
            photo = read_image(dataset.data.image_path(image))
            labels = dataset.lookup[dataset.labels(image, photo.shape[:2])]
            true = photos.mask(int(photos.instances_in(k)[0]), photo.shape[:2]).astype(bool)
            ious.append(((labels > 0) & true).sum() / ((labels > 0) | true).sum())
            shown[task.updates].append(overlay_labels(photo, labels, names))
        table.add(str(task.updates), *ious)

    table = Table("boxsup", "updates", list(PHOTOS.values()), first="update")
    BoxSupTask._draw = draw  # type: ignore[method-assign]
    boxel.train("boxsup", training, out=args.out / "run", config=args.recipe, label="segments")
    table.write([0])
    updates = [*args.updates, max(shown)]
    drawn = [shown[update][k] for k in range(len(photos)) for update in updates]
    save_image(contact_sheet(drawn, columns=len(updates), cell=300), args.out / "updates.png")


def outlined(folder: Path) -> Annotations:
    """The photos, with the outline of the one object of each that is learned."""
    data = write_sample_images(folder)
    return data.select_images([data.paths.index(name) for name in PHOTOS]).select_categories(
        [*PHOTOS.values()]
    )


if __name__ == "__main__":
    main()
