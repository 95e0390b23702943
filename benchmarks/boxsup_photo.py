"""The labels of three photos from update to update, while BoxSup learns from them and from boxes of COCO (Fig. 3).

    python benchmarks/boxsup_photo.py ../shared/data/coco --out runs/boxsup_photo

The photos come with scikit-image; what is learned of them are their boxes. `recipes/boxsup_small.yaml` with `--label
segments`, the 455 training photos of COCO beside them. Prints after each update the IoU of each photo's labels with
its outline, which nothing else looks at, and draws the updates that --updates names, the last one always.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from boxsup_coco import VOC

import boxel
from boxel.data import Annotations, read
from boxel.data.images import read_image
from boxel.data.join import join
from boxel.data.samples import write_photos
from boxel.training.boxsup import BoxSupTask
from boxel.viz.overlays import contact_sheet, overlay_labels, save_image

PHOTOS = {"astronaut.png": "person", "chelsea.png": "cat", "motorcycle_left.png": "motorcycle"}


def main() -> None:
    """Train, print the segments' IoU and draw the labels."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("coco", type=Path, help="folder with images/ and train_boxes.json")
    parser.add_argument("--out", type=Path, default=Path("runs/boxsup_photo"))
    parser.add_argument("--recipe", default="recipes/boxsup_small.yaml")
    parser.add_argument("--updates", type=int, nargs="+", default=[1, 5])
    args = parser.parse_args()
    photos = outlined(args.out / "photos")
    coco = read(args.coco / "train_boxes.json", images=args.coco / "images")
    training = join([coco.select_categories(VOC), photos.without_masks()])
    shown: dict[int, list[Any]] = {}

    def draw(task: BoxSupTask) -> None:
        dataset, names = task.dataset, [category.name for category in task.model.categories]
        shown[task.updates], ious = [], []
        for k in range(len(photos)):
            image = len(training) - len(photos) + k
            photo = read_image(dataset.data.image_path(image))
            labels = dataset.translation[dataset.labels(image, photo.shape[:2])]
            true = photos.mask(int(photos.instances_of(k)[0]), photo.shape[:2]).astype(bool)
            ious.append(((labels > 0) & true).sum() / ((labels > 0) | true).sum())
            shown[task.updates].append(overlay_labels(photo, labels, names))
        print(f"| {task.updates} | {' | '.join(f'{iou:.3f}' for iou in ious)} |", flush=True)

    print(f"| update | {' | '.join(PHOTOS.values())} |\n|---|---|---|---|")
    BoxSupTask._draw = draw  # type: ignore[method-assign]
    boxel.train("boxsup", training, out=args.out / "run", config=args.recipe, label="segments")
    updates = [*args.updates, max(shown)]
    drawn = [shown[update][k] for k in range(len(photos)) for update in updates]
    save_image(contact_sheet(drawn, columns=len(updates), cell=300), args.out / "updates.png")


def outlined(folder: Path) -> Annotations:
    """The photos, with the outline of the one object of each that is learned."""
    data = write_photos(folder)
    return data.select_images([data.paths.index(name) for name in PHOTOS]).select_categories(
        [*PHOTOS.values()]
    )


if __name__ == "__main__":
    main()
