"""SBD, the Semantic Boundaries Dataset: ``inst/*.mat`` and ``cls/*.mat`` with masks of VOC's 20 classes.

The set: Hariharan et al., "Semantic Contours from Inverse Detectors", ICCV 2011. A file of ``inst`` holds the struct
``GTinst`` with ``Segmentation`` ((H, W), k for the k-th instance), ``Categories`` (the class of each instance, from 1)
and ``Boundaries`` (one sparse map an instance); ``GTcls`` in ``cls`` has classes in place of instances.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import cv2
import msgspec
import numpy as np
from numpy.typing import NDArray

from boxel.data.annotations import Annotations, Category
from boxel.data.formats.builder import Builder
from boxel.data.formats.layout import (
    Ids,
    file_stems,
    find_image,
    iou_lost,
    lost_flags,
    lost_label_maps,
    lost_masks,
    place_images,
    readable_mask,
    size_of,
    suffix_of,
    write_ids,
)
from boxel.data.formats.voc import class_order, read_image_set
from boxel.data.images import MAX_PIXELS
from boxel.data.issues import Issue
from boxel.masks.rle import encode
from boxel.utils.errors import BoxelError, one_line

_CROSS = cv2.getStructuringElement(cv2.MORPH_CROSS, (3, 3))
_INSTANCES = 255  # what the uint8 map of a file can number


def recognize(path: Path) -> bool:
    """Whether this is an SBD folder (``benchmark_RELEASE``, ``dataset`` or one like it), or a list in it."""
    return _set_folder(path) is not None


def _set_folder(path: Path) -> Path | None:
    if path.is_file() and path.suffix != ".txt":
        return None
    start = path.parent if path.is_file() else path
    folders = (start, start / "dataset", start / "benchmark_RELEASE" / "dataset")
    return next(
        (folder for folder in folders if (folder / "inst").is_dir() or (folder / "cls").is_dir()), None
    )


def read(path: Path, images: Path | None = None) -> Annotations:
    """Read SBD.

    Boxes are the tight ones of the masks. ``cls`` is not needed.

    Args:
        path: the folder, or a list of names beside ``inst`` (``train.txt``) to read only those.
        images: the folder of the images, if it is not ``img``.

    Raises:
        BoxelError: there is no such set.
    """
    folder = _set_folder(path)
    if folder is None or not (folder / "inst").is_dir():
        raise BoxelError(f"{path}: there is no SBD set; it should be a folder with inst/*.mat.")
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
        except Exception as error:  # scipy's reader raises many kinds of errors on a damaged file
            message = f"{file}: cannot be read as SBD ({one_line(error)}); the image is left out."
            rows.issues.append(Issue("bad-file", message, str(file), image_id=stem, repair="left out"))
            continue
        image = find_image(images, stem) if images else f"img/{find_image(folder / 'img', stem)}"
        index = rows.add_image(stem, image, segmentation.shape[1], segmentation.shape[0])
        for k, label in enumerate(labels, start=1):
            mask = segmentation == k
            if not mask.any():
                continue  # numbers that nothing is left of
            columns, lines = np.flatnonzero(mask.any(axis=0)), np.flatnonzero(mask.any(axis=1))
            box = [float(v) for v in (columns[0], lines[0], columns[-1] + 1, lines[-1] + 1)]
            instances.append((f"{stem}:{k}", index, label, box, msgspec.json.encode(encode(mask))))
    most = max((label for _, _, label, _, _ in instances), default=0)
    names += [f"class {k}" for k in range(len(names) + 1, most + 1)]
    for id, index, label, box, code in instances:
        rows.add(id, index, label - 1, box, code)
    categories = [Category(k, name) for k, name in enumerate(names, start=1)]
    data = rows.build(images or folder, categories, path)
    return ids.restore(data, data.image_ids)  # type: ignore[arg-type]  # they are stems


def _read_instances(file: Path) -> tuple[NDArray[Any], list[int]]:
    """The (H, W) instance map and the class of each instance, from 1."""
    from scipy.io import loadmat  # only MATLAB files need SciPy

    content = loadmat(str(file), variable_names=["GTinst"], squeeze_me=False)
    struct = content["GTinst"][0, 0]
    segmentation = np.asarray(struct["Segmentation"])
    labels = [int(v) for v in np.asarray(struct["Categories"]).ravel()]
    if (
        segmentation.ndim != 2
        or not 0 < segmentation.size <= MAX_PIXELS
        or segmentation.dtype.kind not in "uif"
    ):
        raise ValueError(f"its Segmentation is {segmentation.dtype} of {segmentation.shape}")
    if labels and not 1 <= min(labels) <= max(labels) <= _INSTANCES:
        raise ValueError("its Categories are not classes")
    if segmentation.max() > len(labels):
        raise ValueError(f"it has instance {segmentation.max()} but {len(labels)} Categories")
    return segmentation, labels


def write(data: Annotations, path: Path) -> list[str]:
    """Write an SBD set into a folder: ``inst``, ``cls``, ``img`` and the list ``all.txt``.

    Args:
        data: the data set.
        path: the folder.

    Returns:
        What SBD could not hold: it has masks only, one instance a pixel.
    """
    stems = file_stems(data.paths)
    names = [stem + suffix_of(p) for stem, p in zip(stems, data.paths, strict=True)]
    for sub in ("inst", "cls"):
        (path / sub).mkdir(parents=True, exist_ok=True)
    missing = place_images(data, path / "img", names)
    order = class_order([category.name for category in data.categories])
    rows: list[list[int]] = []
    ious: list[float] = []
    unreadable: list[str] = []
    written = []
    for i, stem in enumerate(stems):
        rows.append([])
        width, height = size_of(data, i)
        if not 0 < width * height <= MAX_PIXELS:
            continue
        written.append(stem)
        masks: dict[int, NDArray[np.uint8]] = {}
        for instance in data.instances_in(i).tolist():
            mask = readable_mask(data, instance, (width, height), unreadable)
            if mask is not None and mask.any() and len(masks) < _INSTANCES:
                masks[instance] = mask
        labels = {
            instance: order.index(data.categories[data.labels[instance]].name) + 1 for instance in masks
        }
        instances = np.zeros((height, width), dtype=np.uint8)
        classes = np.zeros_like(instances)
        number = {instance: k for k, instance in enumerate(masks, start=1)}
        for instance in sorted(masks, key=lambda instance: -int(masks[instance].sum())):
            instances[masks[instance] != 0] = number[instance]
            classes[masks[instance] != 0] = labels[instance]
        for instance, mask in masks.items():
            left = int((instances == number[instance]).sum())
            ious.append(left / int(mask.sum()))
            if left:
                rows[-1].append(instance)
        _save(path / "inst" / f"{stem}.mat", "GTinst", instances, list(labels.values()), len(masks))
        _save(path / "cls" / f"{stem}.mat", "GTcls", classes, sorted(set(labels.values())), len(order))
    (path / "all.txt").write_text("".join(f"{stem}\n" for stem in written), encoding="utf-8")
    write_ids(data, path, stems, rows)
    left_out = len(data.labels) - sum(map(len, rows))
    return [
        *iou_lost(ious, len(ious), "SBD", "holds one instance a pixel"),
        *(
            [f"SBD holds masks only: {left_out} of {len(data.labels)} instances are left out."]
            if left_out
            else []
        ),
        *lost_masks(data, unreadable, "SBD"),
        *lost_flags(data, "SBD"),
        *lost_label_maps(data, "SBD"),
        *missing,
    ]


def _save(file: Path, name: str, values: NDArray[np.uint8], categories: list[int], maps: int) -> None:
    from scipy.io import savemat
    from scipy.sparse import csc_matrix

    boundaries = np.empty((maps, 1), dtype=object)
    empty = csc_matrix(values.shape, dtype=bool)
    present = set(np.unique(values).tolist())
    for k in range(maps):
        mask = (values == k + 1).astype(np.uint8)
        boundaries[k, 0] = (
            csc_matrix(mask > cv2.erode(mask, _CROSS, borderType=cv2.BORDER_CONSTANT, borderValue=0))
            if k + 1 in present
            else empty
        )
    fields = {
        "Segmentation": values,
        "Categories": np.array(categories, dtype=np.float64).reshape(-1, 1),
        "Boundaries": boundaries,
    }
    savemat(file, {name: fields}, do_compression=True)


def augmented_train(
    voc_train: Iterable[str], voc_val: Iterable[str], sbd_train: Iterable[str], sbd_val: Iterable[str]
) -> list[str]:
    """The augmented training list for semantic segmentation of VOC 2012.

    All images with masks in VOC or SBD, but for those VOC validates on. From VOC's ``ImageSets/Segmentation`` (1,464
    and 1,449 images) and SBD's own lists (8,498 and 2,857) this makes 10,582 images.

    Args:
        voc_train: names in VOC 2012's ``ImageSets/Segmentation/train.txt``.
        voc_val: names in its ``val.txt``.
        sbd_train: names in SBD's ``train.txt``.
        sbd_val: names in its ``val.txt``.

    Returns:
        Names, sorted.
    """
    return sorted((set(voc_train) | set(sbd_train) | set(sbd_val)) - set(voc_val))


def instance_split(
    voc_train: Iterable[str], voc_val: Iterable[str], sbd: Iterable[str]
) -> tuple[list[str], list[str]]:
    """The split for instance segmentation of VOC 2012: SBD's images by the side of VOC they are on.

    From VOC's ``ImageSets/Main`` (5,717 and 5,823 images) and all 11,355 images of SBD this makes 5,623 images to
    train on and 5,732 to evaluate on, as in Hariharan et al., "Simultaneous Detection and Segmentation", ECCV 2014.

    Args:
        voc_train: names in VOC 2012's ``ImageSets/Main/train.txt``.
        voc_val: names in its ``val.txt``.
        sbd: names in SBD's ``train.txt`` and ``val.txt``.

    Returns:
        Names to train on and names to evaluate on, each sorted.
    """
    names = set(sbd)
    return sorted(names & set(voc_train)), sorted(names & set(voc_val))
