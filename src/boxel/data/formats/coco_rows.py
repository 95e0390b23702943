"""Decode the rows of COCO's lists: ordinary ones together, unusual ones alone and leniently."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from typing import Annotated, Any

import msgspec
from msgspec import Meta, Raw, Struct

from boxel.data.annotations import ImageId
from boxel.data.formats.builder import MALFORMED
from boxel.utils.errors import one_line

_MAX_UNKNOWN = 64  # names of unknown fields that are decoded together


class Row(Struct, kw_only=True, gc=False):
    """An annotation; a field that it lacks has its default."""

    image_id: ImageId
    category_id: ImageId
    bbox: tuple[float, float, float, float] | None
    id: ImageId | None = None
    segmentation: Raw = Raw(b"")
    iscrowd: bool = False
    quality: float | None = None
    source: str | None = None
    trusted: bool = True
    area: float | None = None
    extras: bytes | None = None
    ignored: tuple[str, ...] = ()  # sentences on fields that cannot be understood


# The fields and types that nearly every file has, for `RowDecoder`.
STRICT_IMAGE: list[Any] = [
    ("id", int),
    ("file_name", str),
    ("width", Annotated[int, Meta(ge=0, lt=2**31)], 0),
    ("height", Annotated[int, Meta(ge=0, lt=2**31)], 0),
    ("split", str | None, None),
]
STRICT_ANNOTATION: list[Any] = [
    ("image_id", int),
    ("category_id", int),
    ("bbox", tuple[float, float, float, float]),
    ("id", int | None, None),
    ("segmentation", Raw, Raw(b"")),
    ("iscrowd", bool | int, False),
    ("quality", float | None, None),
    ("source", str | None, None),
    ("trusted", bool, True),
    ("area", float | None, None),
]


class RowDecoder:
    """Decode many rows at once, which is several times as fast as one by one.

    Unknown fields are learned from the rows: each name becomes a field of the type that rows are decoded as.

    Args:
        fields: Name and type of each known field, and its default if it may be missing.
        enclose: Returns the type of what holds the rows for their type; a list if not given.
    """

    def __init__(self, fields: Sequence[Any], enclose: Callable[[Any], Any] = list.__class_getitem__) -> None:
        self.unknown: list[str] = []
        self._fields, self._enclose = fields, enclose
        self._decoder = self._make()

    def _make(self) -> msgspec.json.Decoder[Any]:
        extras = [
            (f"extra_{k}", Raw, msgspec.field(name=name, default=Raw(b"")))
            for k, name in enumerate(self.unknown)
        ]
        row = msgspec.defstruct(
            "_StrictRow", [*self._fields, *extras], kw_only=True, gc=False, forbid_unknown_fields=True
        )
        return msgspec.json.Decoder(self._enclose(row))

    def decode(self, raws: Sequence[Raw]) -> list[Any] | None:
        """Return the rows, with the known fields as attributes; None if one of them is unusual."""
        return self.decode_text(b"[" + b",".join(raws) + b"]")

    def decode_text(self, text: bytes) -> Any:
        """Return what holds the rows; None if something in it is unusual."""
        while True:
            try:
                return self._decoder.decode(text)
            except MALFORMED as error:
                _, found, rest = str(error).partition("unknown field `")
                name = rest.rpartition("` - at")[0]
                if not found or not name or name in self.unknown or len(self.unknown) >= _MAX_UNKNOWN:
                    return None
            self.unknown.append(name)
            try:
                self._decoder = self._make()
            except ValueError:  # it has a character that msgspec does not allow in names
                self.unknown.pop()
                return None

    def extras(self, row: Any) -> bytes | None:
        """Return the unknown fields of a row as a JSON text; None if it has none."""
        values = {name: getattr(row, f"extra_{k}") for k, name in enumerate(self.unknown)}
        return join_fields({name: value for name, value in values.items() if bytes(value)})


def join_fields(fields: dict[str, Raw]) -> bytes | None:
    """Return a JSON text of an object with these fields; None if there are none."""
    return msgspec.json.encode(fields) if fields else None


def read_annotation(raw: Raw) -> Row:
    """Read one annotation leniently: a field that is not needed costs only itself.

    Raises:
        ValueError: A field that is needed is missing or cannot be understood. Broken JSON raises others of `MALFORMED`.
    """
    fields = _Fields(raw)
    return Row(
        image_id=fields.take("image_id", to_id),
        category_id=fields.take("category_id", to_id),
        bbox=fields.take("bbox", _to_bbox, None, strict=True),
        id=fields.take("id", to_id, None),
        segmentation=fields.raws.pop("segmentation", Raw(b"")),
        iscrowd=fields.take("iscrowd", _to_flag, default=False),
        quality=fields.take("quality", _to_number, None),
        source=fields.carry("source", str),
        trusted=fields.take("trusted", _to_flag, default=True),
        area=fields.take("area", _to_number, None),
        extras=join_fields(fields.raws),
        ignored=tuple(fields.ignored),
    )


class ImageRow(Struct):
    """An image; sizes that are unknown are 0."""

    id: ImageId
    file_name: str
    width: int
    height: int
    split: str | None
    extras: bytes | None
    ignored: Sequence[str]


def read_image(raw: Raw) -> ImageRow:
    """Read an image; raises as `read_annotation` does."""
    fields = _Fields(raw)
    name = fields.take("file_name", _to_text, None)
    for other in ("coco_url", "path", "url"):  # LVIS has only the first
        name = name or (_to_text(fields.value(other)) if other in fields.raws else "")
    if not name:
        raise ValueError("it has no file_name")
    return ImageRow(
        id=fields.take("id", to_id),
        file_name=name,
        width=fields.take("width", _to_pixels, default=0),
        height=fields.take("height", _to_pixels, default=0),
        split=fields.carry("split", str),
        extras=join_fields(fields.raws),
        ignored=fields.ignored,
    )


class CategoryRow(Struct):
    """A category."""

    id: ImageId
    name: str
    supercategory: str
    extras: bytes | None
    ignored: Sequence[str]
    is_named: bool


def read_category(raw: Raw) -> CategoryRow:
    """Read a category, which is named by its id if it has no name; raises as `read_annotation` does."""
    fields = _Fields(raw)
    id = fields.take("id", to_id)
    name = fields.take("name", _to_text, None)
    return CategoryRow(
        id=id,
        name=name or str(id),
        supercategory=fields.take("supercategory", _to_text, default=""),
        extras=join_fields(fields.raws),
        ignored=fields.ignored,
        is_named=bool(name),
    )


class _Fields:
    """The fields of a row, which are taken one after the other; those that remain are unknown."""

    def __init__(self, raw: Raw) -> None:
        self.raws = msgspec.json.decode(raw, type=dict[str, Raw])
        self.ignored: list[str] = []

    def value(self, name: str) -> Any:
        # Python's parser accepts numbers too large for a float (as infinite).
        return json.loads(bytes(self.raws[name]))

    def take(self, name: str, convert: Callable[[Any], Any], default: Any = ..., strict: bool = False) -> Any:
        """Take a field as a type; its default if it is missing or null.

        Without a default the field is needed. One that cannot be understood is ignored, unless it is needed or strict.
        """
        is_needed = default is ...
        if name not in self.raws:
            if is_needed:
                raise ValueError(f"it has no {name}")
            return default
        try:
            value = self.value(name)
            return default if value is None and not is_needed else convert(value)
        except MALFORMED as error:
            text = one_line(bytes(self.raws[name]).decode(errors="replace"), 60)
            if is_needed or strict:
                raise ValueError(f"{name} is {text}") from error
            self.ignored.append(f"its {name} is {text}, which is ignored")
            return default
        finally:
            self.raws.pop(name)

    def carry(self, name: str, kind: type) -> Any:
        """Take a field if it is of this type; else leave it among the unknown ones."""
        value = self.value(name) if name in self.raws else None
        if value is not None and not isinstance(value, kind):
            return None
        self.raws.pop(name, None)
        return value


def to_id(value: Any) -> ImageId:
    """Return an id as it was meant: some tools write 7 as 7.0."""
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, bool) or not isinstance(value, int | str):
        raise ValueError(f"{value} is not an id")
    return value


def _to_number(value: Any) -> float:
    if isinstance(value, bool):
        raise ValueError("it is not a number")
    return float(value)


def _to_pixels(value: Any) -> int:
    number = _to_number(value)
    if not 0 <= number < 2**31:
        raise ValueError("it is not a number of pixels")
    return int(number)


def _to_flag(value: Any) -> bool:
    if isinstance(value, str):
        value = {"true": 1, "false": 0}.get(value.lower(), value)
    number = float(value)
    if number not in (0, 1):
        raise ValueError("it is neither 0 nor 1")
    return number == 1


def _to_text(value: Any) -> str:
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise ValueError("it is not a text")
    return str(value)


def _to_bbox(value: Any) -> tuple[float, ...] | None:
    if value == []:
        return None
    if not isinstance(value, list) or len(value) != 4:
        raise ValueError("it is not four numbers")
    return tuple(math.nan if number is None else _to_number(number) for number in value)
