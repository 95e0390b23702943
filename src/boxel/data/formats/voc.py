"""Pascal VOC: a folder with ``Annotations/*.xml``, ``JPEGImages/`` and, for some images, segmentation PNGs.

The format: Everingham et al., "The PASCAL Visual Object Classes Challenge 2012 Development Kit", sections 4 and 5.
Boxes in its files are 1-based and include their last pixel, so that xyxy = (xmin - 1, ymin - 1, xmax, ymax). Objects
marked difficult are ordinary instances.
"""

from __future__ import annotations

import os
import re
import xml.etree.ElementTree as ElementTree
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path, PurePosixPath

import defusedxml.ElementTree

from boxel.data.annotations import BACKGROUND, Annotations, Category, values_to_labels
from boxel.data.formats.builder import Builder, read_bytes
from boxel.data.formats.layout import Export, Ids, find_image
from boxel.data.formats.semantic_classes import load_class_table
from boxel.data.formats.voc_masks import match_masks, write_pngs
from boxel.utils.errors import BoxelError, one_line

CLASSES = tuple(name for name in load_class_table("voc").values() if name != "background")
"""The challenge's classes; class k has the value k + 1 in ``SegmentationClass``."""


def recognize(path: Path) -> bool:
    """Return whether this is a VOC folder (or the parent of a ``VOC2012``), an image set of one, or an XML file."""
    if path.is_file():
        return path.suffix.lower() == ".xml" or (path.suffix == ".txt" and "ImageSets" in path.parts)
    return _find_folder(path) is not None


def _find_folder(path: Path) -> Path | None:
    for folder in (path, *sorted(path.glob("VOC*")), *sorted(path.glob("VOCdevkit/VOC*"))):
        if any((folder / "Annotations").glob("*.xml")):
            return folder
    return path if any(path.glob("*.xml")) else None


def read(path: Path, images: Path | None = None) -> Annotations:
    """Read a VOC dataset.

    A mask of ``SegmentationObject`` belongs to the XML object that its tight box overlaps most, of the class that
    ``SegmentationClass`` states; without an XML file the masks alone are the instances.

    Args:
        path: The folder, an image set of it (``ImageSets/Segmentation/train.txt``) to read only that, or one XML file.
        images: Folder of the images, if it is not ``JPEGImages``.
    """
    folder, stems = _locate(path)
    xml_folder = folder / "Annotations" if (folder / "Annotations").is_dir() else folder
    rows = Builder()
    ids = Ids(folder, rows)
    parsed = [_Xml(stem, xml_folder / f"{stem}.xml", rows) for stem in stems]
    order = class_order([*(name for xml in parsed for name, _ in xml.objects), *ids.names])
    known_order = order if ids.names or order == list(CLASSES) else None
    root, subfolder = (images, ".") if images else (folder, _image_folder(folder))
    for xml in parsed:
        relative = str(PurePosixPath(subfolder) / find_image(root / subfolder, xml.stem, xml.filename))
        size = xml.size if all(xml.size) else ids.image_size(root / relative, xml.stem)
        label_map = folder / "SegmentationClass" / f"{xml.stem}.png"
        map_path = os.path.relpath(label_map, root) if label_map.is_file() else None
        index = rows.add_image(xml.stem, relative, *size, map_path)
        boxed = xml.objects if xml.file.is_file() else None
        instances = match_masks(xml.stem, boxed, folder, known_order, size, rows)
        for k, (class_name, box, segmentation) in enumerate(instances, start=1):
            rows.add(f"{xml.stem}:{k}", index, order.index(class_name), box, segmentation)
    categories = [Category(k, name) for k, name in enumerate(order, start=1)]
    values = {0: BACKGROUND} | {k: k - 1 for k in range(1, len(order) + 1)}
    built = replace(rows.build(root, categories, path), map_labels=values_to_labels(values))
    data = ids.restore(built, [xml.stem for xml in parsed])
    # The values of label maps would mean other classes.
    if [category.name for category in data.categories] != order:
        data = replace(data, label_maps=[None] * len(data))
    return data


def class_order(names: Sequence[str]) -> list[str]:
    """Return the classes in the order of their values in ``SegmentationClass``: the challenge's, or alphabetical."""
    return list(CLASSES) if set(names) <= set(CLASSES) else sorted(set(names))


def _locate(path: Path) -> tuple[Path, list[str]]:
    """Return the dataset's folder and the stems to read."""
    if path.is_file() and path.suffix.lower() == ".xml":
        return (path.parent.parent if path.parent.name == "Annotations" else path.parent), [path.stem]
    if path.is_file():
        folder = next((p.parent for p in path.parents if p.name == "ImageSets"), path.parent)
        return folder, read_image_set(path)
    found = _find_folder(path) if path.is_dir() else None
    if found is None:
        raise BoxelError(f"{path}: there is no VOC dataset; it should be a folder with Annotations/*.xml.")
    source = found / "Annotations" if (found / "Annotations").is_dir() else found
    return found, sorted(file.stem for file in source.glob("*.xml"))


def read_image_set(path: Path) -> list[str]:
    """Read the stems listed in an image-set file, each once, in its order.

    A second column, as in ``ImageSets/Main/dog_train.txt``, is ignored.
    """
    lines = read_bytes(path).decode("utf-8", "replace").splitlines()
    names = [line.split()[0] for line in lines if line.split()]
    return list(
        dict.fromkeys(PurePosixPath(name.replace("\\", "/")).name.replace("\0", "_") for name in names)
    )


class _Xml:
    """One XML file: the name and the (width, height) of its image, and the name and box of each object."""

    def __init__(self, stem: str, file: Path, rows: Builder) -> None:
        self.stem, self.file = stem, file
        self.filename, self.size = "", (0, 0)
        self.objects: list[tuple[str, tuple[float, ...]]] = []
        if not file.is_file():
            return
        try:
            tree = defusedxml.ElementTree.fromstring(read_bytes(file))
        except Exception as error:  # expat, defusedxml and codecs each have their own errors
            what = f"cannot be read as XML ({one_line(error)}); its annotations are left out."
            rows.report("bad-file", file, what, stem)
            return
        named = (tree.findtext("filename") or "").strip().replace("\\", "/")
        self.filename = PurePosixPath(named).name.replace("\0", "_")
        self.size = _pixels(tree.findtext("size/width")), _pixels(tree.findtext("size/height"))
        for k, element in enumerate(tree.findall("object"), start=1):
            try:
                name = (element.findtext("name") or "").strip()
                if not name:
                    raise ValueError("it has no name")
                x0, y0, x1, y1 = (_number(element, key) for key in ("xmin", "ymin", "xmax", "ymax"))
                self.objects.append((name, (x0 - 1, y0 - 1, x1, y1)))
            except ValueError as error:
                what = f"object {k} cannot be read ({one_line(error)}); it is left out."
                rows.report("bad-annotation", file, what, stem, f"{stem}:{k}")


def _number(element: ElementTree.Element, key: str) -> float:
    text = element.findtext(f"bndbox/{key}")
    if text is None:
        raise ValueError(f"its bndbox has no {key}")
    return float(text)


def _pixels(text: str | None) -> int:
    try:
        value = float(text or 0)
    except ValueError:
        return 0
    return int(value) if 0 <= value < 2**31 else 0


def _image_folder(folder: Path) -> str:
    return next((name for name in ("JPEGImages", "images", "Images") if (folder / name).is_dir()), ".")


def write(data: Annotations, path: Path) -> list[str]:
    """Write a VOC folder.

    Boxes keep their fractions, as in some of VOC's own files. Object k of an XML file has the value k in
    ``SegmentationObject``; if masks overlap the smaller one lies on top. Void pixels of a label map, and those that no
    mask covers, go into ``SegmentationClass``.
    """
    for sub in ("Annotations", "ImageSets/Main", "ImageSets/Segmentation"):
        (path / sub).mkdir(parents=True, exist_ok=True)
    export = Export(data, path, "VOC", "JPEGImages")
    order = class_order([_to_text(category.name) for category in data.categories])
    values = [order.index(_to_text(category.name)) + 1 for category in data.categories]
    segmented: list[str] = []
    lost_maps: list[str] = []
    for image, stem in enumerate(export.stems):
        export.rows[image] = data.instances_in(image).tolist()
        has_masks = write_pngs(export, image, values, lost_maps)
        segmented += [stem] if has_masks else []
        tree = _tree(data, image, export.names[image], has_masks)
        tree.write(path / "Annotations" / f"{stem}.xml", encoding="utf-8")
    for kind, listed in (("Main", export.stems), ("Segmentation", segmented)):
        text = "".join(f"{stem}\n" for stem in listed)
        (path / "ImageSets" / kind / "trainval.txt").write_text(text, encoding="utf-8")
    export.write_ids()
    losses = []
    if lost_maps:
        losses.append(f"VOC: {len(lost_maps)} label maps are not kept whole, the first: {lost_maps[0]}")
    return export.losses("holds one object per pixel", others=losses, has_label_maps=True)


def _tree(data: Annotations, image: int, name: str, segmented: bool) -> ElementTree.ElementTree:
    size = data.image_size(image)
    root = ElementTree.Element("annotation")
    _add_fields(root, folder="JPEGImages", filename=name)
    _add_fields(ElementTree.SubElement(root, "size"), width=size[0], height=size[1], depth=3)
    _add_fields(root, segmented=int(segmented))
    for instance in data.instances_in(image).tolist():
        element = ElementTree.SubElement(root, "object")
        _add_fields(element, name=_to_text(data.categories[data.labels[instance]].name))
        _add_fields(element, pose="Unspecified", truncated=0, difficult=0)
        x0, y0, x1, y1 = (f"{round(v, 9):.15g}" for v in data.boxes[instance] + [1, 1, 0, 0])
        _add_fields(ElementTree.SubElement(element, "bndbox"), xmin=x0, ymin=y0, xmax=x1, ymax=y1)
    ElementTree.indent(root, "\t")
    return ElementTree.ElementTree(root)


def _add_fields(parent: ElementTree.Element, **texts: str | int) -> None:
    for tag, text in texts.items():
        ElementTree.SubElement(parent, tag).text = str(text)


def _to_text(name: str) -> str:
    """Remove from a name what XML forbids and what readers strip."""
    return re.sub(r"[\x00-\x1f\ud800-\udfff\ufffe\uffff]", " ", name).strip() or "unnamed"
