"""SBD, the Semantic Boundaries Dataset: ``inst/*.mat`` and ``cls/*.mat`` with masks of VOC's 20 classes.

The dataset: Hariharan et al., "Semantic Contours from Inverse Detectors", ICCV 2011. A file in ``inst`` holds the
struct ``GTinst`` with ``Segmentation`` ((H, W), k for the k-th instance), ``Categories`` (the class of each instance,
from 1) and ``Boundaries`` (one sparse map per instance); ``GTcls`` in ``cls`` has classes instead of instances.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import msgspec
import numpy as np
from numpy.typing import NDArray

from boxel.data.annotations import Annotations, Category
from boxel.data.formats.builder import Builder
from boxel.data.formats.layout import Export, Ids, find_image
from boxel.data.formats.voc import class_order, read_image_set
from boxel.data.images import MAX_PIXELS
from boxel.data.issues import Issue
from boxel.data.matlab import read_mat
from boxel.masks.boxes import tight_boxes
from boxel.masks.rle import encode
from boxel.utils.errors import BoxelError, missing_extra, one_line

_CROSS = cv2.getStructuringElement(cv2.MORPH_CROSS, (3, 3))
_MAX_INSTANCES = 255  # what the uint8 map of a file can number


def recognize(path: Path) -> bool:
    """Return whether this is an SBD folder (``benchmark_RELEASE``, ``dataset`` or the like), or a list in it."""
    return _find_folder(path) is not None


def _find_folder(path: Path) -> Path | None:
    if path.is_file() and path.suffix != ".txt":
        return None
    start = path.parent if path.is_file() else path
    folders = (start, start / "dataset", start / "benchmark_RELEASE" / "dataset")
    return next(
        (folder for folder in folders if (folder / "inst").is_dir() or (folder / "cls").is_dir()), None
    )


def read(path: Path, images: Path | None = None) -> Annotations:
    """Read SBD; ``cls`` is not needed. Boxes are the tight boxes of the masks.

    Args:
        path: The folder, or a list of names beside ``inst`` (``train.txt``) to read only those.
        images: Folder of the images, if it is not ``img``.

    Raises:
        BoxelError: There is no such dataset.
    """
    folder = _find_folder(path)
    if folder is None or not (folder / "inst").is_dir():
        raise BoxelError(f"{path}: there is no SBD dataset; it should be a folder with inst/*.mat.")
    stems = (
        read_image_set(path)
        if path.is_file()
        else sorted(file.stem for file in (folder / "inst").glob("*.mat"))
    )
    ids = Ids(folder)
    rows = Builder()
    names = class_order(ids.names)
    instances: list[tuple[str, int, int, list[float], bytes]] = []
    for stem in stems:
        file = folder / "inst" / f"{stem}.mat"
        try:
            segmentation, labels = _read_instances(file)
        except Exception as error:  # a damaged file raises many kinds of errors
            message = f"{file}: cannot be read as SBD ({one_line(error)}); the image is left out."
            rows.issues.append(Issue("bad-file", message, str(file), image_id=stem, repair="left out"))
            continue
        image = find_image(images, stem) if images else f"img/{find_image(folder / 'img', stem)}"
        index = rows.add_image(stem, image, segmentation.shape[1], segmentation.shape[0])
        masks = [segmentation == k for k in range(1, len(labels) + 1)]
        boxes = tight_boxes(masks)
        for k, (label, mask, box) in enumerate(zip(labels, masks, boxes, strict=True), start=1):
            if mask.any():  # some numbers have no pixel
                code = msgspec.json.encode(encode(mask))
                instances.append((f"{stem}:{k}", index, label, box.tolist(), code))
    highest = max((label for _, _, label, _, _ in instances), default=0)
    names += [f"class {k}" for k in range(len(names) + 1, highest + 1)]
    for id, index, label, tight, code in instances:
        rows.add(id, index, label - 1, tight, code)
    categories = [Category(k, name) for k, name in enumerate(names, start=1)]
    data = rows.build(images or folder, categories, path)
    return ids.restore(data, data.image_ids)  # type: ignore[arg-type]  # they are stems


def _read_instances(file: Path) -> tuple[NDArray[Any], list[int]]:
    """Read the (H, W) instance map and the class of each instance, from 1."""
    struct = read_mat(file, "GTinst")
    segmentation = np.asarray(struct["Segmentation"])
    labels = [int(v) for v in np.asarray(struct["Categories"]).ravel()]
    if (
        segmentation.ndim != 2
        or not 0 < segmentation.size <= MAX_PIXELS
        or segmentation.dtype.kind not in "uif"
    ):
        raise ValueError(f"its Segmentation is {segmentation.dtype} of {segmentation.shape}")
    if labels and not 1 <= min(labels) <= max(labels) <= _MAX_INSTANCES:
        raise ValueError("its Categories are not classes")
    if segmentation.max() > len(labels):
        raise ValueError(f"it has instance {segmentation.max()} but {len(labels)} Categories")
    return segmentation, labels


def write(data: Annotations, path: Path) -> list[str]:
    """Write ``inst``, ``cls``, ``img`` and the list ``all.txt`` into a folder.

    Returns:
        What SBD cannot hold: it has masks only, with one instance per pixel.
    """
    require_scipy()
    for sub in ("inst", "cls"):
        (path / sub).mkdir(parents=True, exist_ok=True)
    export = Export(data, path, "SBD", "img")
    order = class_order([category.name for category in data.categories])
    written = [
        stem for image, stem in enumerate(export.stems) if _write_image(export, image, stem, order, path)
    ]
    (path / "all.txt").write_text("".join(f"{stem}\n" for stem in written), encoding="utf-8")
    export.write_ids()
    left_out = export.count_left_out()
    losses = [f"SBD holds masks only: {left_out} of {len(data.labels)} instances are left out."]
    return export.losses(len(export.ious), "holds one instance per pixel", losses if left_out else [])


def _write_image(export: Export, image: int, stem: str, order: list[str], path: Path) -> bool:
    """Write the masks of an image, smaller ones on top; False if its size is unknown."""
    data = export.data
    width, height = data.image_size(image)
    if not 0 < width * height <= MAX_PIXELS:
        return False
    masks: dict[int, NDArray[np.uint8]] = {}
    for instance in data.instances_in(image).tolist():
        mask = export.mask(instance, (width, height))
        if mask is not None and mask.any() and len(masks) < _MAX_INSTANCES:
            masks[instance] = mask
    labels = {i: order.index(data.categories[data.labels[i]].name) + 1 for i in masks}
    instances = np.zeros((height, width), dtype=np.uint8)
    classes = np.zeros_like(instances)
    number = {instance: k for k, instance in enumerate(masks, start=1)}
    for instance in sorted(masks, key=lambda instance: -int(masks[instance].sum())):
        instances[masks[instance] != 0] = number[instance]
        classes[masks[instance] != 0] = labels[instance]
    for instance, mask in masks.items():
        visible = int((instances == number[instance]).sum())
        export.ious.append(visible / int(mask.sum()))
        if visible:
            export.rows[image].append(instance)
    _save(path / "inst" / f"{stem}.mat", "GTinst", instances, list(labels.values()), len(masks))
    _save(path / "cls" / f"{stem}.mat", "GTcls", classes, sorted(set(labels.values())), len(order))
    return True


def require_scipy() -> None:
    """Raise a `BoxelError` unless SciPy, which writes MATLAB files, is installed."""
    try:
        import scipy.io  # noqa: F401
    except ImportError as error:
        raise missing_extra("writing SBD", error, "mat") from error


def _save(file: Path, name: str, values: NDArray[np.uint8], categories: list[int], maps: int) -> None:
    from scipy.io import savemat
    from scipy.sparse import csc_matrix

    boundaries = np.empty((maps, 1), dtype=object)
    empty = csc_matrix(values.shape, dtype=bool)
    present = set(np.unique(values).tolist())
    for k in range(maps):
        mask = (values == k + 1).astype(np.uint8)
        inner = cv2.erode(mask, _CROSS, borderType=cv2.BORDER_CONSTANT, borderValue=0)
        boundaries[k, 0] = csc_matrix(mask > inner) if k + 1 in present else empty
    fields = {
        "Segmentation": values,
        "Categories": np.array(categories, dtype=np.float64).reshape(-1, 1),
        "Boundaries": boundaries,
    }
    savemat(file, {name: fields}, do_compression=True)
