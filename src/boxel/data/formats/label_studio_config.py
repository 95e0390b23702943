"""The labeling configuration of a project of Label Studio: which regions its annotators draw, and their classes."""

from __future__ import annotations

import colorsys
import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from xml.sax.saxutils import quoteattr

import defusedxml.ElementTree

from boxel.data.annotations import Annotations, Category
from boxel.data.formats.builder import Builder, read_bytes
from boxel.data.formats.extras import decode_extras, encode_extras, get_text
from boxel.utils.errors import one_line

CONFIG_FILE = "label_config.xml"

CONTROLS = {
    "rectangle": ("RectangleLabels", "box"),
    "polygon": ("PolygonLabels", "polygon"),
    "brush": ("BrushLabels", "mask"),
}
"""The tag and the name of what annotators draw each kind of region with."""


def read_config(file: Path, rows: Builder) -> dict[str, Category]:
    """Return the classes of a labeling configuration in order; their id is 0 if it does not give one."""
    found: dict[str, Category] = {}
    if not file.is_file():
        return found
    try:
        tree = defusedxml.ElementTree.fromstring(read_bytes(file))
    except Exception as error:  # expat, defusedxml and codecs each have their own errors
        what = f"cannot be read ({one_line(error)}); the classes are in alphabetical order."
        rows.report("bad-file", file, what, repair="")
        return found
    for control in tree.iter():
        if control.tag.lower().removesuffix("labels") in (*CONTROLS, "ellipse", ""):
            for label in control.iter("Label"):
                name, category = label.get("alias") or label.get("value") or "", label.get("category", "")
                id = int(category) if re.fullmatch(r"\d{1,9}", category) else 0
                color = {"color": label.get("background")} if label.get("background") else {}
                found.setdefault(name, Category(id, name, extras=encode_extras(color)))
    return found


def number_categories(names: list[str], known: Mapping[str, Category]) -> list[Category]:
    """Return the categories of names, with the ids that are known and distinct, and free ones for the rest."""
    ids = Counter(category.id for category in known.values())
    free = iter(number for number in range(1, len(names) + len(ids) + 1) if number not in ids)
    categories = []
    for name in names:
        category = known.get(name, Category(0, name))
        is_own = category.id > 0 and ids[category.id] == 1
        categories.append(category if is_own else replace(category, id=next(free)))
    return categories


def write_config(data: Annotations, used: set[str]) -> str:
    """Return the configuration of a project with the classes of a dataset, for some kinds of regions."""
    lines = ["<View>", '  <Image name="image" value="$image" zoom="true" zoomControl="true"/>']
    for tag, control in (CONTROLS[kind] for kind in CONTROLS if kind in used):
        lines.append(f'  <{tag} name="{control}" toName="image">')
        for k, category in enumerate(data.categories):
            color = get_text(decode_extras(category.extras), "color") or _color(k)
            fields = f"value={quoteattr(category.name)} background={quoteattr(color)}"
            lines.append(f'    <Label {fields} category="{category.id}"/>')
        lines.append(f"  </{tag}>")
    return "\n".join([*lines, "</View>", ""])


def _color(k: int) -> str:
    """Return the k-th of many colors that are easy to tell apart."""
    red, green, blue = colorsys.hsv_to_rgb(k * 0.618034 % 1, 0.75, 0.9)
    return f"#{round(255 * red):02x}{round(255 * green):02x}{round(255 * blue):02x}"
