"""Label Studio: a JSON list of tasks, one per image, with annotations, or with predictions to start from.

The format: https://labelstud.io/guide/task_format, https://labelstud.io/guide/export and the pages of its tags. Numbers
are percent of the sides of the image. Key points, relations and whatever else encloses nothing are left out; a rotated
box becomes the box around it (see `rotated`), an ellipse a polygon. Exports of the kind JSON-MIN are read too.
"""

from __future__ import annotations

import logging
import math
import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import msgspec
from msgspec import Raw

from boxel.data.annotations import Annotations, ImageId
from boxel.data.formats.brush import decode_brush
from boxel.data.formats.builder import JSON_TOKEN, Builder, parse_json, read_head, read_utf8
from boxel.data.formats.extras import encode_extras, get_dict, get_list, get_text
from boxel.data.formats.geometry import (
    ellipse_points,
    enclose,
    encode_visible,
    find_code_box,
    rotate_box,
    to_polygons,
)
from boxel.data.formats.identity import Held, Ids
from boxel.data.formats.label_studio_config import CONFIG_FILE, number_categories, read_config
from boxel.data.formats.label_studio_writer import FILE, KNOWN, LOCAL, UNNAMED, region_fields
from boxel.data.formats.label_studio_writer import OPTIONS as OPTIONS
from boxel.data.formats.label_studio_writer import write as write
from boxel.data.formats.layout import file_stems
from boxel.data.formats.names import ImageFinder, find_file, folder_beside, stay_inside
from boxel.data.formats.rotated import CORNERS
from boxel.data.images import MAX_PIXELS, SUFFIXES
from boxel.utils.errors import BoxelError, one_line

logger = logging.getLogger(__name__)

_TASK_KEYS = ("annotations", "predictions", "completions", "data", "annotation_id", "annotator")
_UPLOADED = re.compile(r"[0-9a-f]{8}-(.+)")  # what Label Studio puts before the name of an uploaded file
_ATTRIBUTES = frozenset(["choices", "textarea", "rating", "number", "taxonomy", "datetime"])


def recognize(path: Path) -> bool:
    """Return whether this is a JSON file of tasks, or a folder of one."""
    return _find_file(path) is not None


def _find_file(path: Path) -> Path | None:
    return find_file(path, FILE, _has_tasks)


def _has_tasks(file: Path) -> bool:
    """Return whether the first object of a list has keys of a task."""
    depth = 0
    for token in JSON_TOKEN.finditer(read_head(file)):
        text, colon = token.groups()
        if text is None:
            depth += 1 if token[0] in b"[{" else -1
            if depth < 1 or (depth == 1 and token[0] in b"{}"):  # not a list, or its first object has ended
                return False
        elif colon and depth == 2 and text.decode(errors="replace")[1:-1] in _TASK_KEYS:
            return True
    return False


def read(path: Path, images: Path | None = None) -> Annotations:
    """Read the tasks of a JSON file.

    Of several annotations of a task the latest one that is marked as ground truth is read, else the first that was
    submitted. If there is none, the latest prediction is read, with its scores as quality and the version of its model
    as source. A task that nobody has annotated, or that was skipped, is left out: its image may be full of objects.

    Choices, texts and ratings are kept in the extras as ``attributes``; ``label_config.xml`` beside the file, if there
    is one, lists the classes. The images are in ``images/`` or beside the file, unless their folder is given.
    """
    file = _find_file(path) or path
    if file.is_dir():
        raise BoxelError(f"{path}: there are no tasks of Label Studio; name the JSON file.")
    root = images or folder_beside(file, "images")
    rows = Builder()
    ids = Ids(file.parent, rows)
    categories = read_config(file.parent / CONFIG_FILE, rows)
    reader = _Reader(file, root, rows)
    tasks = parse_json(read_utf8(file), file, _decode_list, "a list of tasks")
    for position, raw in enumerate(tasks):
        reader.read_task(position, raw)
    reader.report()
    stems = file_stems(rows.paths)
    rows.find_images(reader.finder, file)
    if len({id for id in rows.image_ids if id != ""}) < len(stems):
        rows.image_ids = [*stems]
    reader.number_rows(stems)
    names = [*categories, *sorted(set(reader.labels) - set(categories))]
    rows.sort_labels(reader.labels, names)
    data = rows.build(root, number_categories(names, categories), file)
    return ids.restore_by_id(data, stems, Held(_hold_region, _hold_image))


def _decode_list(content: bytes) -> list[Raw]:
    if content.lstrip()[:1] == b"{":
        return [msgspec.json.decode(content, type=Raw)]
    return msgspec.json.decode(content, type=list[Raw])


_SUMMARIES = {
    "open": ("not-annotated", "tasks with neither an annotation nor a prediction", "they are left out"),
    "no image": ("not-an-image", "tasks that name no image, but e.g. a video or a text", "they are left out"),
    "skipped": ("not-annotated", "tasks that their annotators have skipped", "they are left out"),
    "several": (
        "several-annotations",
        "tasks with several annotations",
        "the latest ground truth, or else the first, is read and the others are left out",
    ),
    "labels": ("several-labels", "regions with several labels", "the first is their class"),
}
"""By what is counted: the kind of the issue, what it is about, and what becomes of it."""


@dataclass
class _Region:
    """One object of a task: what it is drawn as, and what has been stated about it."""

    kind: str = ""
    value: dict[str, Any] = field(default_factory=dict)
    result: dict[str, Any] = field(default_factory=dict)
    labels: list[str] = field(default_factory=list)
    attributes: dict[str, Any] = field(default_factory=dict)


@dataclass
class _Chosen:
    """The annotation or the prediction of a task that is read."""

    data: dict[str, Any]
    results: list[Any]
    is_prediction: bool = False
    score: Any = None
    source: str | None = None


class _Reader:
    """Reads tasks into rows."""

    def __init__(self, file: Path, root: Path, rows: Builder) -> None:
        self.file, self.rows = file, rows
        self.finder = ImageFinder(root)
        self.labels: dict[str, int] = {}
        self.counts = Counter[str]()  # of what is reported once
        self.left_out = Counter[str]()
        self.seen: set[Any] = set()  # ids of tasks
        self.number = Counter[int]()  # of the rows of an image

    def read_task(self, position: int, raw: Raw) -> None:
        try:
            task = msgspec.json.decode(raw, type=dict[str, Any])
            chosen = self._choose(task)
            if chosen is None:
                return
            data = chosen.data
            name = self._image_name(data)
            if not name:
                self.counts["no image"] += 1
                return
            regions, of_image = self._collect(chosen.results)
            size = self._size(name, regions)
        except (msgspec.MsgspecError, ValueError, TypeError, AttributeError, RecursionError) as error:
            what = f"task {position} of the list cannot be read ({one_line(error)}); it is left out."
            self.rows.report("bad-image", self.file, what, position=position)
            return
        id = task.get("id")
        extras = encode_extras(_image_extras(data) | ({"attributes": of_image} if of_image else {}))
        split = get_text(data, "split")
        id = id if isinstance(id, int | str) and not isinstance(id, bool) else ""
        image = self.rows.add_image(id, name, *size, split=split, extras=extras)
        for region in regions:
            self._read_region(region, image, size, chosen)

    def _choose(self, task: dict[str, Any]) -> _Chosen | None:
        """Choose what is read of a task; None if nobody has annotated it."""
        data = get_dict(task, "data")
        if not data:
            return self._choose_minimal(task)
        annotations = _dicts(task, "annotations") or _dicts(task, "completions")
        submitted = [a for a in annotations if not (a.get("was_cancelled") or a.get("skipped"))]
        self.counts["several"] += len(submitted) > 1
        truths = [a for a in submitted if a.get("ground_truth")]
        if truths:
            return _Chosen(data, get_list(max(truths, key=lambda a: get_text(a, "updated_at")), "result"))
        if submitted:
            return _Chosen(data, get_list(min(submitted, key=lambda a: get_text(a, "created_at")), "result"))
        predictions = _dicts(task, "predictions")
        if annotations or not predictions:
            self.counts["skipped" if annotations else "open"] += 1
            return None
        self.counts["predicted"] += "file_name" not in data  # of another program than boxel
        latest = max(predictions, key=lambda p: get_text(p, "created_at"))
        source = get_text(latest, "model_version") or "prediction"
        source_or_none = None if source == UNNAMED else source
        return _Chosen(data, get_list(latest, "result"), True, latest.get("score"), source_or_none)

    def _choose_minimal(self, task: dict[str, Any]) -> _Chosen | None:
        """Do the same for an export of the kind JSON-MIN, with one entry per annotation, of which the first counts."""
        if task.get("id") is not None and task["id"] in self.seen:
            self.counts["several"] += 1
            return None
        self.seen.add(task.get("id"))
        results = []
        for name in [*task]:
            for value in _dicts(task, name):
                types = [key for key in value if key.endswith("labels")]
                shared = {key: value[key] for key in value if key.startswith("original_")}
                results.append({"type": "".join(types[:1]), "value": value, "from_name": name} | shared)
        own = ("id", "annotator", "annotation_id", "created_at", "updated_at", "lead_time", "agreement")
        data = {key: v for key, v in task.items() if key not in own and not _dicts(task, key)}
        return _Chosen(data, results)

    def _image_name(self, data: dict[str, Any]) -> str:
        """Return the name of the image of a task; empty if it has none, e.g. as it is about a video."""
        named = {key: value for key, value in data.items() if isinstance(value, str)}
        urls = [named[key] for key in ("file_name", "image") if key in named]
        url = next((url for url in [*urls, *named.values()] if _has_image_suffix(url)), (urls or [""])[0])
        if not url and named:
            return ""
        if not url or url.startswith("data:"):
            raise ValueError("its image lies within it" if url else "its data names no image")
        query = parse_qs(urlsplit(url).query) if "?" in url else {}
        name = stay_inside(query["d"][0] if "d" in query else url)
        if self.finder.find(name) is None:
            names = [name, stay_inside(unquote(name))]
            names += [m[1] for n in names if (m := _UPLOADED.fullmatch(PurePosixPath(n).name))]
            name = next((other for other in names if self.finder.find(other)), name)
        return name

    def _collect(self, results: list[Any]) -> tuple[list[_Region], dict[str, Any]]:
        """Join the results of each region; return the regions, and what is stated about the whole image."""
        regions: dict[Any, _Region] = {}
        for position, result in enumerate(results):
            if not isinstance(result, dict):
                self.left_out["unnamed result"] += 1
                continue
            value = get_dict(result, "value")
            type = get_text(result, "type").lower()
            kind = _find_kind(type, value)
            if kind not in _GEOMETRIES and type not in _ATTRIBUTES:
                self.left_out[type or "unnamed result"] += 1
                continue
            region = regions.setdefault(_read_id(result) or position, _Region())
            region.labels += [label for label in find_labels(value) if label not in region.labels]
            if kind in _GEOMETRIES:
                region.kind, region.value, region.result = kind, value, region.result | result
            if type in _ATTRIBUTES:
                stated = value.get("text" if type == "textarea" else type)
                if isinstance(stated, list) and len(stated) == 1:
                    stated = stated[0]
                region.attributes[get_text(result, "from_name") or type] = stated
        drawn = [region for region in regions.values() if region.kind]
        of_image: dict[str, Any] = {}
        for region in regions.values():
            of_image |= {} if region.kind else region.attributes
        return drawn, of_image

    def _size(self, name: str, regions: list[_Region]) -> tuple[int, int]:
        for region in regions:
            width, height = (_pixels(region.result.get(f"original_{side}")) for side in ("width", "height"))
            if width and height:
                return width, height
        return self.finder.read_size(name)

    def _read_region(self, region: _Region, image: int, size: tuple[int, int], chosen: _Chosen) -> None:
        result = region.result
        id = _read_id(result)
        try:
            if not region.labels:
                raise ValueError("it has no label")
            if not all(size):
                raise ValueError("the size of its image is unknown")
            if result.get("image_rotation"):
                degrees = result["image_rotation"]
                raise ValueError(f"it was drawn in an image that was rotated by {degrees} degrees")
            extras = _region_extras(region)
            box, segmentation = _GEOMETRIES[region.kind](region.value, size, extras)
            if not all(map(math.isfinite, box)):
                raise ValueError("its numbers are not finite")
        except (ValueError, TypeError, KeyError, OverflowError) as error:
            stem = PurePosixPath(self.rows.paths[image]).stem
            what = f"{region.kind} {id} of {stem} cannot be read ({one_line(error)}); it is left out."
            self.rows.report("bad-annotation", self.file, what, self.rows.image_ids[image], id or None)
            return
        self.counts["labels"] += len(region.labels) > 1
        score = result.get("score", chosen.score)
        # One that has been drawn or corrected is not the one that was predicted.
        is_predicted = chosen.is_prediction or result.get("origin") == "prediction"
        is_share = is_predicted and isinstance(score, int | float) and 0 <= score <= 1
        label = self.labels.setdefault(region.labels[0], len(self.labels))
        text = None if segmentation is None else msgspec.json.encode(segmentation)
        quality = float(score) if is_share else None
        more = encode_extras(extras)
        self.rows.add(id, image, label, box, text, quality=quality, source=chosen.source, extras=more)

    def number_rows(self, stems: list[str]) -> None:
        """Give each row the id of its region, as a number if it is one, or else one made from the stem of its image."""
        count, taken = Counter[int](), set[ImageId]()
        for row, (image, id) in enumerate(zip(self.rows.image_index, self.rows.ids, strict=True)):
            count[image] += 1
            own: ImageId = int(id) if re.fullmatch(r"0|[1-9]\d{0,17}", str(id)) else id
            if own == "" or own in taken:
                own = f"{stems[image]}:{count[image]}"
            taken.add(own)
            self.rows.ids[row] = own

    def report(self) -> None:
        """Report once what concerns many tasks."""
        for key, (kind, subject, outcome) in _SUMMARIES.items():
            if count := self.counts[key]:
                repair = "left out" if "left out" in outcome else ""
                what = f"{subject}: {count}; {outcome}."
                self.rows.report(kind, self.file, what, repair=repair, count=count)
        for kind, count in self.left_out.items():
            what = f"{count} x {kind}: not a box, a polygon, an ellipse or a brush mask; left out."
            self.rows.report("not-an-object", self.file, what, count=count)
        if count := self.counts["predicted"]:
            logger.info("%s: %d tasks have no annotation, their predictions are read", self.file, count)


def _read_id(result: Mapping[str, Any]) -> str:
    id = result.get("id")
    return str(id) if isinstance(id, str | int) else ""


def _dicts(task: Mapping[str, Any], key: str) -> list[dict[str, Any]]:
    return [item for item in get_list(task, key) if isinstance(item, dict)]


def _has_image_suffix(url: str) -> bool:
    path = urlsplit(url)
    return any(PurePosixPath(text).suffix.lower() in SUFFIXES for text in (path.path, path.query))


def _find_kind(type: str, value: Mapping[str, Any]) -> str:
    """Return what a region is drawn as, e.g. ``rectangle`` for ``rectanglelabels``."""
    if type not in ("labels", ""):
        return type.removesuffix("labels")
    if "rle" in value or "points" in value:
        return "brush" if "rle" in value else "polygon"
    return "ellipse" if "radiusX" in value else "rectangle" if "height" in value else type


def find_labels(value: Mapping[str, Any]) -> list[str]:
    """Return the labels of a region."""
    lists = [get_list(value, key) for key in value if key.endswith("labels")]
    return [label for labels in lists for label in labels if isinstance(label, str)]


def _image_extras(data: dict[str, Any]) -> dict[str, Any]:
    """Return the data of a task that `write` does not add itself."""
    kept = {key: value for key, value in data.items() if key not in ("file_name", "split")}
    if "file_name" in data and get_text(kept, "image").startswith(LOCAL):
        del kept["image"]
    return {"data": kept} if kept else {}


def _hold_region(extras: dict[str, Any], source: str | None) -> dict[str, Any]:
    """Return what a region holds of the extras of its object."""
    fields = region_fields(extras)
    return {"label_studio": fields} if fields else {}


def _hold_image(extras: dict[str, Any], source: str | None) -> dict[str, Any]:
    """Return what a task holds of the extras of its image."""
    return _image_extras(get_dict(extras, "data") | {"file_name": ""})


def _region_extras(region: _Region) -> dict[str, Any]:
    extras: dict[str, Any] = {"attributes": region.attributes} if region.attributes else {}
    if len(region.labels) > 1:
        extras["labels"] = region.labels
    others = {key: value for key, value in region.result.items() if key not in KNOWN}
    return extras | ({"label_studio": others} if others else {})


def _pixels(value: Any) -> int:
    return int(value) if isinstance(value, int | float) and 0 < value < 2**31 else 0


_Shape = tuple[list[float], Any]


def _percent(value: Any, side: int) -> float:
    return round(float(value) / 100 * side, 9)


def read_rectangle(value: Mapping[str, Any], size: tuple[int, int], extras: dict[str, Any]) -> _Shape:
    """Return the box of a rectangle in pixels, which encloses it if it is rotated; its corners become an extra then."""
    x, w = (_percent(value[key], size[0]) for key in ("x", "width"))
    y, h = (_percent(value[key], size[1]) for key in ("y", "height"))
    box = [x, y, round(x + w, 9), round(y + h, 9)]
    degrees = float(value.get("rotation") or 0)
    if not degrees % 360:
        return box, None
    extras[CORNERS] = rotate_box(box, degrees, pivot=(x, y))
    return enclose(extras[CORNERS]), None


def _polygon(value: Mapping[str, Any], size: tuple[int, int], extras: dict[str, Any]) -> _Shape:
    return to_polygons([[[_percent(x, size[0]), _percent(y, size[1])] for x, y in value["points"]]])


def _ellipse(value: Mapping[str, Any], size: tuple[int, int], extras: dict[str, Any]) -> _Shape:
    x, rx = (_percent(value[key], size[0]) for key in ("x", "radiusX"))
    y, ry = (_percent(value[key], size[1]) for key in ("y", "radiusY"))
    return to_polygons([ellipse_points(x, y, rx, ry, float(value.get("rotation") or 0))])


def _brush(value: Mapping[str, Any], size: tuple[int, int], extras: dict[str, Any]) -> _Shape:
    if size[0] * size[1] > MAX_PIXELS:
        raise ValueError("its image is too large")
    rle = encode_visible(decode_brush(value["rle"], size[1], size[0]), 0, 0, size)
    return find_code_box(rle), rle


_GEOMETRIES = {"rectangle": read_rectangle, "polygon": _polygon, "ellipse": _ellipse, "brush": _brush}
