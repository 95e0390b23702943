"""Write CVAT for images 1.1."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any
from xml.sax.saxutils import escape, quoteattr

import msgspec

from boxel.data.annotations import Annotations
from boxel.data.formats.extras import decode_extras, get_dict, get_list
from boxel.data.formats.layout import Export
from boxel.data.formats.rotated import CORNERS
from boxel.data.formats.row_runs import encode_rows
from boxel.data.formats.shapes import Shape, add_shape

FILE = "annotations.xml"
OPTIONS = ("polygons", "simplify")

_FORBIDDEN = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\ud800-\udfff\ufffe\uffff]")  # XML 1.0, section 2.2
_NAME = re.compile(r"[A-Za-z_][\w.-]*\Z")  # of an element or an attribute

KNOWN = frozenset(
    {
        *("label", "occluded", "z_order", "group_id"),
        *("points", "xtl", "ytl", "xbr", "ybr", "rotation"),
        *("rle", "left", "top", "width", "height"),
        *("cx", "cy", "rx", "ry"),
    }
)
"""Attributes of shapes that have a place of their own; others stay under ``cvat``."""

ID_ATTRIBUTE = "boxel_id"
"""Attribute of a shape that holds the id of its object."""


def write(data: Annotations, path: Path, polygons: bool = False, simplify: float | None = None) -> list[str]:
    """Write an ``annotations.xml`` with the images beside it in ``images/``.

    A polygon of one ring stays one, any other mask is written pixel by pixel, and the rest are boxes. Extras that CVAT
    has a place for go there; `IDS_FILE` holds the others, and ids, splits and quality. With ``polygons`` all masks are
    polygons, with their parts and holes in keyhole form; with ``simplify`` these differ by that many pixels at most.
    """
    export = Export(data, path, "CVAT", "images", tolerance=simplify)
    writer = _Writer(export, polygons or simplify is not None)
    with open(path / FILE, "w", encoding="utf-8", newline="\n") as file:
        file.writelines(writer.lines())
    export.write_ids()
    return export.losses(
        "holds one ring per polygon",
        needs="CVAT needs finite numbers",
        others=export.describe_tight_boxes(),
        held=["occluded", "z_order", "group_id", "attributes", "cvat", CORNERS, "image tags"],
    )


class _Writer:
    """The lines of the XML file of an export."""

    def __init__(self, export: Export, as_polygons: bool) -> None:
        self.export, self.data, self.as_polygons = export, export.data, as_polygons
        self.names = export.name_classes(_clean)

    def lines(self) -> Iterator[str]:
        data = self.data
        yield '<?xml version="1.0" encoding="utf-8"?>\n<annotations>\n  <version>1.1</version>\n'
        # As CVAT does, subsets make a project of tasks.
        subsets = [split or "default" for split in data.splits] if any(data.splits) else []
        yield f"  <meta>\n    <{'project' if subsets else 'task'}>\n"
        yield from self.labels()
        if subsets:
            yield "      <tasks>\n"
            for subset in dict.fromkeys(subsets):
                yield f"        <task><mode>annotation</mode><subset>{_escape(subset)}</subset></task>\n"
            yield "      </tasks>\n    </project>\n  </meta>\n"
        else:
            yield f"      <size>{len(data)}</size>\n      <mode>annotation</mode>\n    </task>\n  </meta>\n"
        for image, name in enumerate(self.export.names):
            width, height = data.image_size(image)
            fields: dict[str, Any] = {"id": image, "name": name}
            if subsets:
                fields["subset"] = subsets[image]
            yield f"  <image{_fields(fields | {'width': width, 'height': height})}>\n"
            for instance in data.instances_in(image).tolist():
                yield from self.shape(instance, image)
            for parts in image_tags(decode_extras(data.image_extras[image])):
                yield from element("tag", *parts)
            yield "  </image>\n"
        yield "</annotations>\n"

    def labels(self) -> Iterator[str]:
        """Yield the labels of the task, with the attributes that their shapes have."""
        used: list[dict[str, None]] = [{} for _ in self.names]
        for label, extras in zip(self.data.labels.tolist(), self.data.extras, strict=True):
            if extras is not None:
                used[label] |= dict.fromkeys(get_dict(decode_extras(extras), "attributes"))
        yield "      <labels>\n"
        for name, category, attributes in zip(self.names, self.data.categories, used, strict=True):
            extras = decode_extras(category.extras)
            listed = [a for a in get_list(extras, "attributes") if isinstance(a, dict) and a.get("name")]
            known = {a["name"]: a for a in listed}
            plain = {"mutable": "False", "input_type": "text", "default_value": "", "values": ""}
            known |= {a: {"name": a} | plain for a in attributes if a not in known}
            color = extras.get("color")
            yield f"        <label>\n          <name>{_escape(name)}</name>\n"
            if isinstance(color, str):
                yield f"          <color>{_escape(color)}</color>\n"
            yield "          <type>any</type>\n          <attributes>\n"
            for attribute in known.values():
                named = {key: _escape(to_text(v)) for key, v in attribute.items() if _NAME.match(key)}
                parts = "".join(f"<{key}>{text}</{key}>" for key, text in named.items())
                yield f"            <attribute>{parts}</attribute>\n"
            yield "          </attributes>\n        </label>\n"
        yield "      </labels>\n"

    def shape(self, instance: int, image: int) -> Iterator[str]:
        data = self.data
        extras = decode_extras(data.extras[instance])
        label = {"label": self.names[data.labels[instance]]}
        shape = add_shape(self.export, instance, image, self.as_polygons)
        if shape is not None:
            tag, numbers = _geometry(shape)
            fields = label | shape_fields(extras, data.source[instance]) | numbers
            yield from element(tag, fields, extras)


def _geometry(shape: Shape) -> tuple[str, dict[str, str]]:
    """Return the tag of a shape, and its numbers."""
    if len(shape.points):
        return "polygon", {"points": ";".join(",".join(map(_number, p)) for p in shape.points.tolist())}
    if shape.mask.size:
        (left, top), (height, width) = shape.corner, shape.mask.shape
        numbers = {"left": left, "top": top, "width": width, "height": height}
        return "mask", {"rle": encode_rows(shape.mask)} | {key: str(v) for key, v in numbers.items()}
    sides, rotation = shape.box.tolist(), {}
    if shape.rotated is not None:
        (x, y), w, h, degrees = shape.rotated
        sides, rotation = [x - w / 2, y - h / 2, x + w / 2, y + h / 2], {"rotation": _number(degrees)}
    return "box", dict(zip(("xtl", "ytl", "xbr", "ybr"), map(_number, sides), strict=True)) | rotation


def shape_fields(extras: dict[str, Any], source: str | None) -> dict[str, Any]:
    """Return the attributes of a shape that stand for extras and the source of an object."""
    others = {key: v for key, v in get_dict(extras, "cvat").items() if _NAME.match(key) and key not in KNOWN}
    fields = {
        "source": "manual" if source is None else "auto",
        "occluded": int(str(extras.get("occluded", 0)).lower() in ("1", "true")),
        "z_order": extras["z_order"] if isinstance(extras.get("z_order"), int) else 0,
    }
    if isinstance(extras.get("group_id"), int):
        fields["group_id"] = extras["group_id"]
    return fields | others


def image_tags(extras: dict[str, Any]) -> list[tuple[dict[str, Any], dict[str, Any]]]:
    """Return the fields and the extras of each tag of an image."""
    tags = [tag if isinstance(tag, dict) else {"label": tag} for tag in get_list(extras, "tags")]
    return [({"label": tag.get("label"), "source": "manual"}, tag) for tag in tags]


def element(tag: str, fields: Mapping[str, Any], extras: Mapping[str, Any]) -> Iterator[str]:
    """Yield an element of an image, with its attributes as CVAT writes them."""
    yield f"    <{tag}{_fields(fields)}>\n"
    for name, value in get_dict(extras, "attributes").items():
        yield f"      <attribute{_fields({'name': name})}>{_escape(to_text(value))}</attribute>\n"
    yield f"    </{tag}>\n"


def _fields(fields: Mapping[str, Any]) -> str:
    return "".join(f" {key}={quoteattr(_clean(to_text(value)))}" for key, value in fields.items())


def _escape(text: str) -> str:
    return escape(_clean(text), {"\r": "&#13;"})


def _clean(text: str) -> str:
    return _FORBIDDEN.sub(" ", text)


def _number(value: float) -> str:
    return f"{round(value, 9):.15g}"


def to_text(value: Any) -> str:
    """Return the value of an attribute as CVAT holds it."""
    return value if isinstance(value, str) else msgspec.json.encode(value).decode()
