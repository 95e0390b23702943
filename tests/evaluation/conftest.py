"""Small sets of truth and detections, made by hand or at random."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from boxel.data.annotations import Annotations, Category
from boxel.masks.rle import encode


def _rectangle(height: int, width: int, x0: int, y0: int, x1: int, y1: int) -> np.ndarray:
    mask = np.zeros((height, width), dtype=bool)
    mask[y0:y1, x0:x1] = True
    return mask


def _truth(
    sizes: Sequence[tuple[int, int]],
    instances: Sequence[dict[str, Any]],
    category_ids: Sequence[int] = (1,),
    image_ids: Sequence[int | str] | None = None,
    root: Path = Path(),
) -> Annotations:
    """Annotations from (height, width) of images and dicts of image, label, box (xyxy) and mask or None."""
    boxes, codes = [], []
    for instance in instances:
        mask = instance.get("mask")
        box = instance.get("box")
        if box is None:
            ys, xs = np.nonzero(mask)
            box = (xs.min(), ys.min(), xs.max() + 1, ys.max() + 1)
        boxes.append(box)
        codes.append(None if mask is None else msgspec.json.encode(encode(mask)))
    segmentations = np.full(len(codes), None, dtype=object)
    segmentations[:] = codes
    return Annotations(
        root=root,
        image_ids=list(image_ids or range(1, len(sizes) + 1)),
        paths=[f"{i}.png" for i in range(len(sizes))],
        widths=np.array([w for _, w in sizes], dtype=np.int32),
        heights=np.array([h for h, _ in sizes], dtype=np.int32),
        categories=tuple(Category(id, f"class {id}") for id in category_ids),
        ids=list(range(len(instances))),
        image_index=np.array([i.get("image", 0) for i in instances], dtype=np.int32),
        labels=np.array([i.get("label", 0) for i in instances], dtype=np.int32),
        boxes=np.array(boxes, dtype=np.float64).reshape(-1, 4),
        iscrowd=np.array([i.get("crowd", False) for i in instances], dtype=bool),
        segmentations=segmentations,
    )


def _result(mask: np.ndarray, score: float, image_id: int | str = 1, category_id: int = 1) -> dict[str, Any]:
    ys, xs = np.nonzero(mask)
    x0, y0 = (float(xs.min()), float(ys.min())) if len(xs) else (0.0, 0.0)
    width, height = (float(np.ptp(xs)) + 1, float(np.ptp(ys)) + 1) if len(xs) else (0.0, 0.0)
    return {
        "image_id": image_id,
        "category_id": category_id,
        "score": score,
        "bbox": [x0, y0, width, height],
        "segmentation": encode(mask),
    }


def _ellipse(random: np.random.Generator, height: int, width: int) -> np.ndarray:
    y, x = np.mgrid[:height, :width]
    cx, cy = random.uniform(0, width), random.uniform(0, height)
    rx, ry = random.uniform(3, width / 2), random.uniform(3, height / 2)
    mask = ((x - cx) / rx) ** 2 + ((y - cy) / ry) ** 2 < 1
    return mask if mask.any() else _rectangle(height, width, 0, 0, 5, 5)


def _random_set(seed: int, distinct_scores: bool = False) -> tuple[Annotations, list[dict[str, Any]]]:
    """Twelve images with crowds, ids with gaps, ties of scores, false and doubled detections."""
    random = np.random.default_rng(seed)
    category_ids = (0, 7, 90)
    image_ids = random.permutation(1000)[:12].tolist()
    sizes = [tuple(random.integers(60, 220, size=2).tolist()) for _ in image_ids]
    instances, results = [], []
    for image, (height, width) in enumerate(sizes):
        for _ in range(random.integers(0, 7)):
            mask, label = _ellipse(random, height, width), int(random.integers(0, 3))
            instances.append(
                {"image": image, "label": label, "mask": mask, "crowd": bool(random.random() < 0.1)}
            )
            for _ in range(random.integers(0, 3)):
                found = np.roll(mask, random.integers(-9, 10, size=2), axis=(0, 1))
                wrong = random.random() < 0.15
                results.append((found, image_ids[image], category_ids[(label + wrong) % 3]))
        for _ in range(random.integers(0, 3)):
            results.append(
                (_ellipse(random, height, width), image_ids[image], category_ids[random.integers(0, 3)])
            )
    scores = random.random(len(results)) if distinct_scores else random.random(len(results)).round(1)
    detections = [_result(mask, float(s), i, c) for (mask, i, c), s in zip(results, scores, strict=True)]
    return _truth(sizes, instances, category_ids, image_ids), detections


@pytest.fixture(scope="session")
def rectangle() -> Callable[..., np.ndarray]:
    return _rectangle


@pytest.fixture(scope="session")
def make_truth() -> Callable[..., Annotations]:
    return _truth


@pytest.fixture(scope="session")
def make_result() -> Callable[..., dict[str, Any]]:
    return _result


@pytest.fixture(scope="session")
def ellipse() -> Callable[..., np.ndarray]:
    return _ellipse


@pytest.fixture(scope="session")
def random_set() -> Callable[..., tuple[Annotations, list[dict[str, Any]]]]:
    return _random_set


@pytest.fixture(scope="session")
def pycocotools_stats() -> Callable[..., tuple[np.ndarray, np.ndarray]]:
    """pycocotools' twelve metrics, and its precisions, from COCO dicts."""
    import contextlib
    import io

    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    def stats(
        dataset: dict[str, Any],
        results: list[dict[str, Any]],
        iou_type: str,
        use_categories: bool = True,
        category_ids: Sequence[int] | None = None,
    ) -> tuple[np.ndarray, np.ndarray]:
        with contextlib.redirect_stdout(io.StringIO()):
            truth = COCO()
            truth.dataset = dataset
            truth.createIndex()
            evaluator = COCOeval(truth, truth.loadRes(results), iou_type)
            evaluator.params.useCats = int(use_categories)
            if category_ids is not None:
                evaluator.params.catIds = list(category_ids)
            evaluator.evaluate()
            evaluator.accumulate()
            evaluator.summarize()
        return evaluator.stats, evaluator.eval["precision"]

    return stats


@pytest.fixture(scope="session")
def to_coco() -> Callable[[Annotations], dict[str, Any]]:
    """COCO's dict of a set of ours whose masks are all codes, with its original ids."""

    def convert(truth: Annotations) -> dict[str, Any]:
        annotations = []
        for i, (x0, y0, x1, y1) in enumerate(truth.boxes.tolist()):
            mask = truth.mask(i)
            annotations.append(
                {
                    "id": i + 1,
                    "image_id": truth.image_ids[truth.image_index[i]],
                    "category_id": truth.categories[truth.labels[i]].id,
                    "bbox": [x0, y0, x1 - x0, y1 - y0],
                    "area": float(mask.sum()),
                    "iscrowd": int(truth.iscrowd[i]),
                    "segmentation": encode(mask),
                }
            )
        images = [
            {"id": id, "height": int(h), "width": int(w)}
            for id, h, w in zip(truth.image_ids, truth.heights, truth.widths, strict=True)
        ]
        categories = [{"id": c.id, "name": c.name} for c in truth.categories]
        return {"images": images, "categories": categories, "annotations": annotations}

    return convert
