"""Read detections: COCO results files of any program, and folders of YOLO texts with confidences."""

from __future__ import annotations

import codecs
import json
import logging
import math
from collections.abc import Mapping, Sequence
from numbers import Real
from pathlib import Path
from typing import Annotated, Any, TypedDict, cast

import msgspec

from boxel.data.annotations import Annotations
from boxel.data.checks.mask_shapes import measure_codes
from boxel.data.formats.builder import explain_json_error, read_utf8
from boxel.data.image_names import to_integer
from boxel.evaluation.results import Result, find_sound_codes
from boxel.masks.rle import Rle, to_rle
from boxel.utils.errors import BoxelError, one_line

logger = logging.getLogger(__name__)

_Finite = Annotated[float, msgspec.Meta(ge=-1e300, le=1e300)]
_Side = Annotated[int, msgspec.Meta(gt=0, lt=2**31)]
_Text = Annotated[str, msgspec.Meta(min_length=1)]


class _Code(TypedDict):
    size: Annotated[list[_Side], msgspec.Meta(min_length=2, max_length=2)]
    counts: str


class _Required(TypedDict):
    image_id: int | str
    category_id: int
    score: _Finite


class _Plain(_Required, total=False):
    """A result as nearly every program writes it."""

    bbox: Annotated[list[_Finite], msgspec.Meta(min_length=4, max_length=4)]
    segmentation: _Code
    file_name: _Text
    category_name: _Text


class _Unusable(ValueError):
    """What is wrong with a row, as the rest of a sentence."""


def read_results(path: str | Path) -> list[Result]:
    """Read a COCO results file.

    Args:
        path: A JSON list of results. An id may be a text or a decimal number, and a category may be given by its name
            (`category_name`).

    Returns:
        The results, run-length codes compressed. Those that cannot be used are left out, and reported once.

    Raises:
        BoxelError: The file is missing or not such a list, or none of the results can be used.

    Examples:
        >>> from boxel.data import example_scenes
        >>> path = example_scenes().root / "results.json"
        >>> _ = path.write_text('[{"image_id": "7", "category_id": 1.0, "score": 0.9, "bbox": [0, 0, 8, 8]}]')
        >>> read_results(path)
        [{'image_id': '7', 'category_id': 1, 'score': 0.9, 'bbox': [0.0, 0.0, 8.0, 8.0]}]
    """
    return read_with_positions(Path(path))[0]


def read_with_positions(path: Path) -> tuple[list[Result], Sequence[int]]:
    """Return what :func:`read_results` does, and the position of each result in the file."""
    content = read_utf8(path)
    results = _decode_plain(content)
    if results is None:
        return clean_results(decode_results(content, path), str(path))
    return results, range(len(results))


def _decode_plain(content: bytes) -> list[Result] | None:
    """Return the results of a file if all are sound, and as nearly every program writes them; else None."""
    try:
        results = cast(list[Result], msgspec.json.decode(content, type=list[_Plain]))
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return None
    codes = [result["segmentation"] for result in results if "segmentation" in result]
    texts, sizes = ([code[field] for code in codes] for field in ("counts", "size"))
    sides = [side for result in results for side in result.get("bbox", ())[2:]]
    is_sound = all("bbox" in result or "segmentation" in result for result in results)
    is_sound &= min(sides, default=0) >= 0
    return results if is_sound and measure_codes(texts, sizes, with_boxes=False).sound.all() else None


def clean_results(rows: Sequence[Any], file: str = "results") -> tuple[list[Result], list[int]]:
    """Return the usable results with plain types, and the position of each among the rows; `file` is for messages."""
    results: list[Result] = []
    positions: list[int] = []
    problems: list[str] = []
    segmentations = (row.get("segmentation") if isinstance(row, Mapping) else None for row in rows)
    for position, (row, code) in enumerate(zip(rows, find_sound_codes(segmentations), strict=True)):
        try:
            results.append(_clean_row(row, code))
            positions.append(position)
        except (TypeError, ValueError, OverflowError) as error:
            what = str(error) if isinstance(error, _Unusable) else f"cannot be read ({one_line(error)})"
            problems.append(f"result {position}{_format_image(row)} {what}")
    if problems and not results:
        raise BoxelError(
            f"{file}: none of the {len(rows)} results can be used: {problems[0]}{_remedy(rows)}."
        )
    report_left_out(problems, len(rows), file)
    return results, positions


def report_left_out(problems: Sequence[str], count: int, file: str) -> None:
    """Log one sentence on the results that are left out, of so many; do nothing if there are none."""
    if problems:
        first = "" if len(problems) == 1 else ", the first"
        message = "%s: %d of %d results cannot be used and are left out%s: %s."
        logger.warning(message, file, len(problems), count, first, problems[0])


def is_results_file(path: str | Path) -> bool:
    """Return whether a file is a JSON list, as COCO results are, and not a dataset.

    Datasets are JSON objects, except for the tasks of Label Studio: a list of objects with `data`.
    """
    try:
        with open(path, "rb") as file:
            head = file.read(1 << 20)
    except (OSError, ValueError):
        return False
    utf16 = head.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    text = head.decode("utf-16" if utf16 else "utf-8-sig", "replace").lstrip()
    if not text.startswith("["):
        return False
    try:
        first, _ = json.JSONDecoder().raw_decode(text[1:].lstrip())
    except (ValueError, RecursionError):  # empty, or what reading it reports
        return True
    return not (isinstance(first, dict) and "data" in first and "image_id" not in first)


def decode_results(content: bytes, path: Path) -> list[Any]:
    """Return the rows of a results file as they are written."""
    wanted = "a JSON list of objects with image_id, category_id, score, and bbox or segmentation"
    try:
        rows = _decode_json(content)
    except (ValueError, RecursionError) as error:
        reason = explain_json_error(error, content)
        raise BoxelError(f"{path}: not a COCO results file ({reason}); it should be {wanted}.") from error
    if isinstance(rows, list):
        return rows
    if isinstance(rows, dict) and {"images", "annotations"} & rows.keys():
        what = f"this is a dataset and not a COCO results file; give {wanted}, as a detector writes it."
        raise BoxelError(f"{path}: {what}")
    raise BoxelError(f"{path}: not a COCO results file (it is not a list); it should be {wanted}.")


def _decode_json(content: bytes) -> Any:
    try:
        return msgspec.json.decode(content)
    except msgspec.DecodeError:
        if b"NaN" in content or b"Infinity" in content:  # which Python writes
            return json.loads(content)
        raise


# ---------------------------------------------------------------- one result


def _clean_row(row: Any, code: Rle | None) -> Result:
    """Return a result with plain types, and its run-length code if that is sound; other fields are left out."""
    if not isinstance(row, Mapping):
        raise _Unusable(f"is {one_line(repr(row), 40)}, not an object")
    name, category_name = row.get("file_name"), row.get("category_name")
    result: Result = {
        "image_id": _clean_id(row.get("image_id", name), "image_id"),
        "category_id": _clean_id(row.get("category_id", category_name), "category_id"),
        "score": _clean_score(row.get("score")),
    }
    if isinstance(result["category_id"], str):
        result["category_id"] = to_integer(result["category_id"])
    box, segmentation = row.get("bbox"), row.get("segmentation")
    if box is not None and len(box) != 0:
        result["bbox"] = _clean_box(box)
    if code is not None:
        result["segmentation"] = code
    elif segmentation is not None and len(segmentation) != 0:
        result["segmentation"] = _clean_segmentation(segmentation)
        if "bbox" not in result and isinstance(result["segmentation"], list):
            result["bbox"] = _box_around(result["segmentation"])
    if "bbox" not in result and "segmentation" not in result:
        raise _Unusable("has neither bbox nor segmentation")
    texts = {"file_name": name, "category_name": category_name}
    return result | {key: text for key, text in texts.items() if isinstance(text, str) and text}


def _clean_id(value: Any, field: str) -> int | str:
    if type(value) is int or isinstance(value, str):
        return value
    if value is None:
        raise _Unusable(f"has no {field}")
    if isinstance(value, bool) or not isinstance(value, Real) or float(value) != int(value):  # type: ignore[call-overload]
        raise _Unusable(f"has the {field} {one_line(repr(value), 40)}")
    return int(value)  # type: ignore[call-overload]


def _clean_score(value: Any) -> float:
    if value is None:
        raise _Unusable("has no score")
    score = _to_number(value, "score")
    if not math.isfinite(score):
        raise _Unusable(f"has the score {score}")
    return score


def _clean_box(value: Any) -> list[float]:
    box = [_to_number(number, "bbox") for number in value]
    if not (len(box) == 4 and all(map(math.isfinite, box)) and min(box[2:]) >= 0):
        raise _Unusable(f"has the box {list(value)}, not finite x, y, width, height in pixels")
    return box


def _to_number(value: Any, field: str) -> float:
    if type(value) in (float, int):  # which is asked first, since it is fast
        return float(value)
    try:
        if isinstance(value, (str, Real)) and not isinstance(value, bool):
            return float(value)
    except (ValueError, OverflowError):
        pass
    raise _Unusable(f"has {one_line(repr(value), 40)} as its {field}")


def _clean_segmentation(value: Any) -> Any:
    """Return a compressed run-length code, or the polygons, whose image is not known here."""
    if isinstance(value, Mapping):
        try:
            return to_rle(value, *value["size"])
        except Exception as error:  # pycocotools raises bare Exception and TypeError too
            raise _Unusable(f"has a mask that cannot be read ({one_line(error)})") from error
    if isinstance(value, str):
        raise _Unusable("has a mask that cannot be read (it is a text)")
    polygons = value if isinstance(value[0], (list, tuple)) else [value]
    return [[_to_number(number, "segmentation") for number in polygon] for polygon in polygons]


def _box_around(polygons: Sequence[Sequence[float]]) -> list[float]:
    """Return the xywh box around polygons."""
    xs, ys = ([value for polygon in polygons for value in polygon[axis::2]] for axis in (0, 1))
    return [min(xs), min(ys), max(xs) - min(xs), max(ys) - min(ys)]


def _format_image(row: Any) -> str:
    """Return the image of a row in parentheses, for messages."""
    found = row.get("image_id", row.get("file_name")) if isinstance(row, Mapping) else None
    return "" if found is None else f" (image {one_line(found, 60)})"


def _remedy(rows: Sequence[Any]) -> str:
    """Return what a list without any usable result rather is, if that shows."""
    fields = set().union(*(row.keys() for row in rows[:100] if isinstance(row, Mapping)))
    if "score" not in fields and {"iscrowd", "area"} & fields:
        return "; these are the annotations of a dataset, so give the file that the detector wrote"
    if {"confidence", "conf", "label", "box", "bbox_xyxy", "boxes", "scores"} & fields:
        given = ", ".join(sorted(fields)[:10])
        return f"; write image_id, category_id, score and bbox (x, y, width, height) instead of {given}"
    return ""


# ---------------------------------------------------------------- datasets with scores


def read_scores(data: Annotations) -> list[Result] | None:
    """Return the instances of a dataset as detections if each has a `score` or `confidence`; None if not.

    Some programs write their detections as a dataset. Its ids may be its own, so names identify images and classes.
    """
    results: list[Result] = []
    for instance, extras in enumerate(data.extras.tolist()):
        try:
            fields = msgspec.json.decode(extras or b"{}")
            score = _clean_score(fields.get("score", fields.get("confidence")))
        except (ValueError, AttributeError, msgspec.MsgspecError):
            return None
        image, (x0, y0, x1, y1) = int(data.image_index[instance]), data.boxes[instance].tolist()
        category = data.categories[data.labels[instance]]
        result: Result = {
            "image_id": data.image_ids[image],
            "file_name": data.paths[image],
            "category_id": category.id,
            "category_name": category.name,
            "score": score,
            "bbox": [x0, y0, x1 - x0, y1 - y0],
        }
        mask = data.segmentation(instance)
        results.append(result if mask is None else {**result, "segmentation": mask})
    return results or None
