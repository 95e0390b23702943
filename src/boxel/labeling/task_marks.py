"""The marks by which an annotation tool shows which masks are to be corrected."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from boxel.data.annotations import Annotations, ImageId
from boxel.data.formats.cvat_writer import ID_ATTRIBUTE
from boxel.data.formats.extras import as_objects, decode_extras, encode_extras, get_dict, get_list, get_text
from boxel.labeling.review import NextMask

MARK_ATTRIBUTE = "correct"
"""The attribute in CVAT, and the flag in LabelMe, of masks to correct."""

_MARK = "to correct: "
_MARKED = ("attributes", "flags", "description", "label_studio")


def describe_mark(data: Annotations, one: NextMask) -> str:
    """Return the mark of a mask to correct."""
    quality = data.quality[one.instance]
    return f"{_MARK}{one.reason}" + ("" if np.isnan(quality) else f"; quality {quality:.2f}")


def add_mark(extras: bytes | None, format: str, text: str, id: ImageId) -> bytes | None:
    """Return the extras of an object to correct with what the tool shows; CVAT gets the id of each object, too."""
    fields = decode_extras(extras)
    if format == "cvat":
        fields["attributes"] = {MARK_ATTRIBUTE: text, ID_ATTRIBUTE: str(id)} | get_dict(fields, "attributes")
    elif text and format == "labelme":
        fields["description"] = "\n".join(filter(None, [text, get_text(fields, "description")]))
        fields["flags"] = {MARK_ATTRIBUTE: True} | get_dict(fields, "flags")
    elif text:
        others = get_dict(fields, "label_studio")
        meta = get_dict(others, "meta")
        fields["label_studio"] = others | {"meta": meta | {"text": [text, *get_list(meta, "text")]}}
    return encode_extras(fields)


def remove_marks(data: Annotations) -> Annotations:
    """Return a dataset without what `add_mark` has added."""
    extras = [_remove_mark(text) for text in data.extras]
    return replace(data, extras=as_objects(extras))


def _remove_mark(extras: bytes | None) -> bytes | None:
    fields = decode_extras(extras)
    for name in ("attributes", "flags"):
        fields[name] = {key: v for key, v in get_dict(fields, name).items() if key != MARK_ATTRIBUTE}
    lines = get_text(fields, "description").split("\n")
    fields["description"] = "\n".join(line for line in lines if not line.startswith(_MARK))
    others = get_dict(fields, "label_studio")
    meta = get_dict(others, "meta")
    texts = [text for text in get_list(meta, "text") if not str(text).startswith(_MARK)]
    meta = {key: v for key, v in (meta | {"text": texts}).items() if v}
    fields["label_studio"] = {key: v for key, v in (others | {"meta": meta}).items() if v}
    return encode_extras({key: v for key, v in fields.items() if v not in ("", {}) or key not in _MARKED})
