"""SBD, the Semantic Boundaries Dataset: ``inst/*.mat`` and ``cls/*.mat`` with masks of VOC's 20 classes.

The dataset: Hariharan et al., "Semantic Contours from Inverse Detectors", ICCV 2011. A file in ``inst`` holds the
struct ``GTinst`` with ``Segmentation`` ((H, W), k for the k-th instance), ``Categories`` (the class of each instance,
from 1) and ``Boundaries`` (one sparse map per instance); ``GTcls`` in ``cls`` has classes instead of instances.
"""

from __future__ import annotations

import struct
import zlib
from io import BytesIO
from pathlib import Path
from typing import Any

import cv2
import msgspec
import numpy as np
from numpy.typing import NDArray

from boxel.data.annotations import Annotations, Category
from boxel.data.formats.builder import Builder
from boxel.data.formats.geometry import find_code_box
from boxel.data.formats.identity import Ids
from boxel.data.formats.layout import MAX_MASKS, Export, write_lines
from boxel.data.formats.names import list_files, pair_labels
from boxel.data.formats.voc import read_image_set, read_splits
from boxel.data.formats.voc_writer import class_order, write_splits
from boxel.data.images import MAX_PIXELS
from boxel.data.label_maps import look_up
from boxel.data.matlab import read_mat
from boxel.masks.boxes import tight_boxes
from boxel.masks.rle import encode
from boxel.utils.errors import BoxelError, missing_extra, one_line

_MAX_INSTANCES = 65535
_MAT_HEAD, _MAT_COMPRESSED = 128, 15  # bytes before the first element of a MAT-file, and miCOMPRESSED
_CROSS = cv2.getStructuringElement(cv2.MORPH_CROSS, (3, 3))


def recognize(path: Path) -> bool:
    """Return whether this is an SBD folder (``benchmark_RELEASE``, ``dataset`` or the like), or a list in it."""
    return _find_folder(path) is not None


def _find_folder(path: Path) -> Path | None:
    if path.is_file() and path.suffix.lower() != ".txt":
        return None
    start = path.parent if path.is_file() else path
    folders = (start, start / "dataset", start / "benchmark_RELEASE" / "dataset")
    return next((f for f in folders if (f / "inst").is_dir() or (f / "cls").is_dir()), None)


def read(path: Path, images: Path | None = None) -> Annotations:
    """Read SBD, or of it what a list of names beside ``inst`` (``train.txt``) has; ``cls`` is not needed.

    Boxes are the tight boxes of the masks. The images are in ``img`` unless their folder is given.
    """
    folder = _find_folder(path)
    if folder is None or not (folder / "inst").is_dir():
        raise BoxelError(f"{path}: there is no SBD dataset; it should be a folder with inst/*.mat.")
    files = {file.stem: file for file in list_files(folder / "inst", ".mat")}
    stems = read_image_set(path) if path.is_file() else list(files)
    rows = Builder()
    splits = read_splits([folder], rows)
    ids = Ids(folder, rows)
    names = class_order(ids.names)
    instances: list[tuple[str, int, int, list[float], bytes]] = []
    for stem in stems:
        file = files.get(stem, folder / "inst" / f"{stem}.mat")
        try:
            segmentation, labels = _read_instances(file)
        except Exception as error:  # a damaged file raises many kinds of errors
            what = f"cannot be read as SBD ({one_line(error)}); the image is left out."
            rows.report("bad-file", file, what, stem)
            continue
        height, width = segmentation.shape
        index = rows.add_image(stem, f"{stem}.jpg", width, height, split=splits.get(stem))
        for k in np.unique(segmentation).tolist():  # some numbers have no pixel
            if k in range(1, len(labels) + 1):
                rle, label = encode(segmentation == k), labels[int(k) - 1] - 1
                code = msgspec.json.encode(rle)
                instances.append((f"{stem}:{int(k)}", index, label, find_code_box(rle), code))
    root, subfolder = (images, "") if images else (folder, "img/")
    paths, problems = pair_labels(root / subfolder, rows.paths, [str(id) for id in rows.image_ids])
    rows.paths = [subfolder + name for name in paths]
    for i, what in problems.items():
        id = rows.image_ids[i]
        rows.report("ambiguous-image", folder / "inst" / f"{id}.mat", what, id, repair="")
    highest = max((label for _, _, label, _, _ in instances), default=-1)
    names += [f"class {k}" for k in range(len(names) + 1, highest + 2)]
    for instance in instances:
        rows.add(*instance)
    categories = [Category(k, name) for k, name in enumerate(names, start=1)]
    data = rows.build(root, categories, path)
    return ids.restore(data, data.image_ids)  # type: ignore[arg-type]  # they are stems


def _read_instances(file: Path) -> tuple[NDArray[Any], list[int]]:
    """Read the (H, W) instance map and the class of each instance, from 1."""
    struct = read_mat(file, "GTinst")
    segmentation = np.asarray(struct["Segmentation"])
    labels = [int(v) for v in np.asarray(struct["Categories"]).ravel()[:_MAX_INSTANCES]]
    sound = segmentation.ndim == 2 and segmentation.dtype.kind in "uif"
    if not sound or not 0 < segmentation.size <= MAX_PIXELS:
        raise ValueError(f"its Segmentation is {segmentation.dtype} of {segmentation.shape}")
    if labels and not 1 <= min(labels) <= max(labels) <= 255:
        raise ValueError("its Categories are not classes")
    if segmentation.max() > len(labels):
        raise ValueError(f"it has instance {segmentation.max()} but {len(labels)} Categories")
    return segmentation, labels


def write(data: Annotations, path: Path) -> list[str]:
    """Write ``inst``, ``cls``, ``img`` and the list ``all.txt``: masks only, with one instance per pixel."""
    require_scipy()
    for sub in ("inst", "cls"):
        (path / sub).mkdir(parents=True, exist_ok=True)
    export = Export(data, path, "SBD", "img")
    order = class_order([category.name for category in data.categories])
    stems = [stem for image, stem in enumerate(export.stems) if _write_image(export, image, order)]
    if any(data.splits):
        split_of = dict(zip(export.stems, data.splits, strict=True))
        write_splits(path, stems, [split_of[stem] for stem in stems])
    write_lines(path / "all.txt", stems)
    export.write_ids()
    return export.losses("holds one instance per pixel", needs="SBD holds masks only", held=())


def _write_image(export: Export, image: int, order: list[str]) -> bool:
    """Write the masks of an image, smaller ones on top; False if its size is unknown."""
    data, file = export.data, f"{export.stems[image]}.mat"
    width, height = data.image_size(image)
    if not 0 < width * height <= MAX_PIXELS:
        return False
    own = data.instances_in(image).tolist()
    found = [(own[k - 1], crop) for k, crop in export.masks(image).items() if crop[0].size]
    instances, visible = export.paint(dict(enumerate((crop for _, crop in found), start=1)), (height, width))
    for (i, (_, x, y)), shown in zip(found, visible.values(), strict=True):
        if shown.any():
            box = tight_boxes([shown])[0] + (x, y, x, y)
            export.add(image, i, box.tolist(), mask_area=int(np.count_nonzero(shown)))
    labels = [order.index(data.categories[data.labels[i]].name) + 1 for i, _ in found][:MAX_MASKS]
    class_of = np.zeros(256, dtype=np.uint8)
    class_of[1 : len(labels) + 1] = labels
    classes = look_up(instances, class_of)
    present = [k in labels for k in range(1, len(order) + 1)]
    _save(export.folder / "inst" / file, "GTinst", instances, labels, [True] * len(labels))
    _save(export.folder / "cls" / file, "GTcls", classes, sorted(set(labels)), present)
    return True


def require_scipy() -> None:
    """Raise a `BoxelError` unless SciPy, which writes MATLAB files, is installed."""
    try:
        import scipy.io  # noqa: F401
    except ImportError as error:
        raise missing_extra("writing SBD", error, "mat") from error


def _save(
    file: Path, name: str, values: NDArray[np.uint8], categories: list[int], present: list[bool]
) -> None:
    """Write a struct; its k-th boundary, from 1, is empty if the value k is not present."""
    from scipy.io import savemat

    boundaries = np.empty((len(present), 1), dtype=object)
    for k, is_present in enumerate(present, start=1):
        boundaries[k - 1, 0] = _find_boundary(values, k if is_present else None)
    fields = {
        "Segmentation": values,
        "Categories": np.array(categories, dtype=np.float64).reshape(-1, 1),
        "Boundaries": boundaries,
    }
    plain = BytesIO()
    savemat(plain, {name: fields})
    head, variable = plain.getvalue()[:_MAT_HEAD], plain.getvalue()[_MAT_HEAD:]
    # SciPy's own compression takes three times as long.
    run = zlib.compressobj(strategy=zlib.Z_RLE)
    packed = run.compress(variable) + run.flush()
    file.write_bytes(head + struct.pack("<II", _MAT_COMPRESSED, len(packed)) + packed)


def _find_boundary(values: NDArray[np.uint8], value: int | None) -> Any:
    """Return the sparse map of the pixels of a value that are next to others; an empty one if it is None."""
    from scipy.sparse import csc_matrix

    mask = np.zeros_like(values) if value is None else (values == value).view(np.uint8)
    x, y, w, h = cv2.boundingRect(mask)
    if not w:  # it is not present, or all of it is below others
        return csc_matrix(values.shape, dtype=bool)
    mask = mask[y : y + h, x : x + w]
    inner = cv2.erode(mask, _CROSS, borderType=cv2.BORDER_CONSTANT, borderValue=0)
    columns, rows = np.divmod(np.flatnonzero(cv2.transpose(mask - inner).view(bool)), h)
    starts = np.zeros(values.shape[1] + 1, dtype=np.int32)
    starts[1:] = np.bincount(columns + x, minlength=values.shape[1]).cumsum()
    return csc_matrix((np.ones(len(rows), dtype=bool), (rows + y).astype(np.int32), starts), values.shape)
