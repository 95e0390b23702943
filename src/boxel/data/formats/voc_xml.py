"""The XML files of Pascal VOC: decoded as they declare, with the fields that boxel does not use.

Such a field of an object (``difficult``, ``truncated``, ``pose``, ``part``, ``attributes``) or an image (``source``,
``owner``) is carried along in the extras under its tag, and written back there.
"""

from __future__ import annotations

import contextlib
import json
import math
import re
import xml.etree.ElementTree as ElementTree
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any

import defusedxml.ElementTree

from boxel.data.formats.builder import Builder
from boxel.data.formats.geometry import enclose, rotate_box
from boxel.data.formats.rotated import CORNERS, find_rotated
from boxel.data.formats.xml_files import open_xml, to_pixels
from boxel.utils.errors import one_line

IMAGE_TAGS = frozenset(("folder", "filename", "path", "size", "segmented", "object"))
OBJECT_TAGS = frozenset(("name", "bndbox", "polygon", "robndbox"))
"""Tags that are read and written as what they mean; all others are carried along."""

_DEFAULTS = {"pose": "Unspecified", "truncated": 0, "difficult": 0, "occluded": 0}
_MAX_DEPTH = 8
_TAG = re.compile(r"[A-Za-z_][\w.-]{0,60}", re.ASCII)


@dataclass
class VocObject:
    """An object as it is written: its (xmin, ymin, xmax, ymax), or xyxy corners of its outline if it has no bndbox."""

    name: str
    bounds: Sequence[float]
    has_bounds: bool
    rings: list[list[float]]
    extras: dict[str, Any]

    def box(self, counts_from_zero: bool) -> list[float]:
        """Return its xyxy box in pixels; swapped corners stay swapped."""
        x0, y0, x1, y1 = self.bounds
        if counts_from_zero or not self.has_bounds:
            return [x0, y0, x1, y1]
        x0, x1 = (x0 - 1, x1) if x0 <= x1 else (x0, x1 - 1)
        y0, y1 = (y0 - 1, y1) if y0 <= y1 else (y0, y1 - 1)
        return [x0, y0, x1, y1]


@dataclass
class VocFile:
    """An XML file; without objects if there is none."""

    stem: str
    filename: str = ""
    size: tuple[int, int] = (0, 0)
    objects: list[VocObject] | None = None
    extras: dict[str, Any] = field(default_factory=dict)


def read_voc_xml(file: Path, stem: str, rows: Builder) -> VocFile | None:
    """Read an XML file; None, which becomes an issue, if it is not one of VOC."""
    try:
        with open_xml(file) as (stream, parser):
            root = defusedxml.ElementTree.parse(stream, parser).getroot()
    except Exception as error:  # expat, defusedxml and codecs each have their own errors
        what = f"cannot be read as XML ({one_line(error)}); its image is left out."
        rows.report("bad-file", file, what, stem)
        return None
    tags = {child.tag for child in root}
    if root.tag != "annotation" or (tags and not tags & IMAGE_TAGS):
        known = {"annotations": "CVAT's", "html": "a web page's"}
        whose = known.get(root.tag, f"of another kind (<{root.tag}>)")
        rows.report("bad-file", file, f"its XML is {whose}, not Pascal VOC's; its image is left out.", stem)
        return None
    found = VocFile(stem, (root.findtext("filename") or "").strip(), objects=[])
    found.size = to_pixels(root.findtext("size/width")), to_pixels(root.findtext("size/height"))
    found.extras = read_fields(root, IMAGE_TAGS)
    for k, element in enumerate(root.findall("object"), start=1):
        try:
            found.objects.append(_read_object(element))  # type: ignore[union-attr]  # it is a list
        except (ValueError, TypeError) as error:
            what = f"object {k} cannot be read ({one_line(error)}); it is left out."
            rows.report("bad-annotation", file, what, stem, f"{stem}:{k}")
    return found


def _read_object(element: ElementTree.Element) -> VocObject:
    name = (element.findtext("name") or "").strip()
    if not name:
        raise ValueError("it has no name")
    extras = _object_extras(element)
    rings = [ring for polygon in element.findall("polygon") if len(ring := _read_polygon(polygon)) >= 6]
    rotated = element.find("robndbox")
    outline = [ring[k : k + 2] for ring in rings for k in range(0, len(ring), 2)]
    if rotated is not None:
        x, y, w, h, angle = (_number(rotated, key) for key in ("cx", "cy", "w", "h", "angle"))
        box = [x - w / 2, y - h / 2, x + w / 2, y + h / 2]
        outline = extras[CORNERS] = rotate_box(box, math.degrees(angle), (x, y))
        extras.pop("type", None)
    bounds = element.find("bndbox")
    if bounds is None and outline:
        return VocObject(name, enclose(outline), False, rings, extras)
    if bounds is None:
        raise ValueError("it has neither a bndbox nor a polygon")
    sides = [_number(bounds, key) for key in ("xmin", "ymin", "xmax", "ymax")]
    return VocObject(name, sides, True, rings, extras)


def _object_extras(element: ElementTree.Element) -> dict[str, Any]:
    fields = read_fields(element, OBJECT_TAGS)
    return {key: value for key, value in fields.items() if value != _DEFAULTS.get(key, ...)}


def _read_polygon(polygon: ElementTree.Element) -> list[float]:
    """Read the vertices ``x1 y1 x2 y2 ...``, or ``pt`` elements of an x and a y."""
    points = [[float(pt.findtext(key) or "") for key in "xy"] for pt in polygon.findall("pt")]
    k = 1
    while (x := polygon.findtext(f"x{k}")) is not None and (y := polygon.findtext(f"y{k}")) is not None:
        points.append([float(x), float(y)])
        k += 1
    ring = list(chain.from_iterable(points))
    if not all(map(math.isfinite, ring)):
        raise ValueError("its polygon is not finite")
    return ring


def _number(element: ElementTree.Element, key: str) -> float:
    text = element.findtext(key)
    if text is None:
        raise ValueError(f"its {element.tag} has no {key}")
    return float(text)


def read_fields(element: ElementTree.Element, known: Collection[str] = (), depth: int = 0) -> dict[str, Any]:
    """Return the fields within an element by tag, but for known ones; a tag that comes several times has a list."""
    fields: dict[str, Any] = {}
    for child in element if depth < _MAX_DEPTH else ():
        if child.tag in known:
            continue
        value: Any = _parse((child.text or "").strip())
        if len(child):
            items = child.findall("attribute")
            named = {(item.findtext("name") or ""): item.findtext("value") for item in items}
            is_named = child.tag == "attributes" and len(named) == len(child) and None not in named.values()
            value = read_fields(child, depth=depth + 1)
            if is_named:
                value = {name: _parse((text or "").strip()) for name, text in named.items()}
        if child.tag in fields:
            before = fields[child.tag]
            value = [*(before if isinstance(before, list) else [before]), value]
        fields[child.tag] = value
    return fields


def _parse(text: str) -> Any:
    """Return the number or truth value that a text spells in JSON's own way, else the text."""
    with contextlib.suppress(ValueError):
        value = json.loads(text) if len(text) < 18 else text
        if isinstance(value, bool | int | float) and math.isfinite(value) and json.dumps(value) == text:
            return value
    return text


def add_fields(
    parent: ElementTree.Element, fields: Mapping[str, Any], known: Collection[str] = (), depth: int = 0
) -> None:
    """Append fields to an element in the form of `read_fields`; what XML cannot hold is left out."""
    for tag, value in fields.items():
        if tag in known or not _TAG.fullmatch(tag):
            continue
        for item in value if isinstance(value, list) else [value]:
            if isinstance(item, dict) and depth < _MAX_DEPTH:
                child = ElementTree.SubElement(parent, tag)
                if tag == "attributes":
                    for name, text in item.items():
                        attribute = ElementTree.SubElement(child, "attribute")
                        add_fields(attribute, {"name": name, "value": text}, depth=depth + 1)
                else:
                    add_fields(child, item, depth=depth + 1)
            elif item is not None and not isinstance(item, list | dict):
                text = item if isinstance(item, str) else json.dumps(item)
                ElementTree.SubElement(parent, tag).text = clean_text(text)


def clean_text(text: str) -> str:
    """Remove from a text what XML forbids and what readers strip."""
    return re.sub(r"[\x00-\x1f\ud800-\udfff\ufffe\uffff]", " ", text).strip()


def hold_object(extras: dict[str, Any], source: str | None = None) -> dict[str, Any]:
    """Return what an XML file holds of the extras of an object."""
    element = ElementTree.Element("object")
    add_fields(element, extras, (*OBJECT_TAGS, CORNERS))
    return _object_extras(element)


def hold_image(extras: dict[str, Any], source: str | None = None) -> dict[str, Any]:
    """Return what an XML file holds of the extras of an image."""
    element = ElementTree.Element("annotation")
    add_fields(element, extras, IMAGE_TAGS)
    return read_fields(element)


def write_object(
    parent: ElementTree.Element, name: str, box: Sequence[float], extras: dict[str, Any]
) -> None:
    """Append an object with its xyxy box."""
    element = ElementTree.SubElement(parent, "object")
    rotated = find_rotated(extras, box)  # type: ignore[arg-type]  # a sequence is enough
    add_fields(element, ({"type": "robndbox"} if rotated else {}) | {"name": name})
    own = {key: extras.get(key, _DEFAULTS[key]) for key in ("pose", "truncated", "difficult")}
    add_fields(element, own | extras, (*OBJECT_TAGS, CORNERS))
    x0, y0, x1, y1 = (round(v, 9) for v in box)
    bounds = {"xmin": x0 + 1, "ymin": y0 + 1, "xmax": x1, "ymax": y1}
    add_fields(element, {"bndbox": {key: f"{round(v, 9):.15g}" for key, v in bounds.items()}})
    if rotated:
        (x, y), w, h, degrees = rotated
        values = {"cx": x, "cy": y, "w": w, "h": h, "angle": math.radians(degrees)}
        add_fields(element, {"robndbox": {key: round(v, 9) for key, v in values.items()}})
