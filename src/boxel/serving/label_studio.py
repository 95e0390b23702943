"""What Label Studio asks of an ML backend: masks of the boxes of its tasks.

The protocol: `label_studio/ml/api_connector.py` and `label_studio/ml/models.py` of Label Studio 1.23, and
https://labelstud.io/guide/ml_create. A box is a rectangle that an annotator has just drawn (`params.context`), or one
that a task has. A mask is a region of the first `BrushLabels` of an image, or else of its first `PolygonLabels`.
"""

from __future__ import annotations

import logging
import secrets
from collections.abc import Iterator
from typing import Any, NamedTuple

import defusedxml.ElementTree
import numpy as np
from fastapi import FastAPI
from pydantic import BaseModel

from boxel import __version__
from boxel.data.formats.brush import encode_brush_in_box
from boxel.data.formats.extras import get_dict, get_text
from boxel.data.formats.label_studio import find_labels, read_rectangle
from boxel.data.formats.label_studio_config import CONTROLS
from boxel.data.formats.outlines import trace_outline
from boxel.labeling.box_segmenter import BoxMasks, BoxSegmenter
from boxel.masks.rle import decode_in_box
from boxel.serving.images import ImageSource
from boxel.utils.errors import BoxelError, one_line

logger = logging.getLogger(__name__)

DEFAULT_PORT = 9090
"""The port of ML backends in the documentation of Label Studio."""


class Setup(BaseModel):
    """What Label Studio states about itself."""

    hostname: str = ""
    access_token: str | None = None


class Drawing(BaseModel):
    """The regions of an annotation, of a prediction, or of an annotator who asks for more."""

    result: list[dict[str, Any]] | None = None
    was_cancelled: bool | None = False


class Task(BaseModel):
    """A task with what has been drawn in it."""

    id: int | None = None
    data: dict[str, Any]
    annotations: list[Drawing] = []
    predictions: list[Drawing] = []


class Params(BaseModel):
    """The context holds what has just been drawn."""

    context: Drawing | None = None


class Prediction(BaseModel):
    """A request of predictions."""

    tasks: list[Task]
    label_config: str
    params: Params = Params()


class _Control(NamedTuple):
    """The tag of a labeling configuration that masks are drawn with."""

    kind: str  # of `CONTROLS`
    name: str
    image: str  # name of the tag of its image
    field: str  # of the data of a task that has the address of the image
    labels: list[str]


def add_label_studio(app: FastAPI, segmenter: BoxSegmenter, teacher: str, source: ImageSource) -> None:
    """Add the routes that Label Studio calls."""
    version = f"boxel {__version__} {teacher}"

    @app.get("/health")
    def health() -> dict[str, str]:
        return {"status": "UP", "model_class": "boxel"}

    @app.get("/versions")
    def versions() -> dict[str, list[str]]:
        return {"versions": [version]}

    @app.post("/webhook")
    def ignore() -> dict[str, str]:  # which Label Studio calls after each annotation
        return {}

    @app.post("/setup")
    def setup(stated: Setup) -> dict[str, str]:
        if stated.hostname:
            source.state(stated.hostname, stated.access_token or "")
        return {"model_version": version}

    @app.post("/predict")
    def predict(request: Prediction) -> dict[str, Any]:
        control = _find_control(request.label_config)
        results: list[Any] = []
        for task in request.tasks:
            try:
                regions = _predict(task, request.params.context, control, segmenter, source)
            except BoxelError as error:
                if len(request.tasks) == 1:
                    raise
                logger.warning("task %s has no masks: %s", task.id, error)
                regions = []
            score = sum(region["score"] for region in regions) / max(len(regions), 1)
            made = {"result": regions, "score": score, "model_version": version}
            # Without a box there is no prediction, which Label Studio would show and not ask for again.
            results.append(made if regions or request.params.context else [])
        return {"results": results, "model_version": version}


def _find_control(config: str) -> _Control:
    """Return the tag that masks are drawn with."""
    try:
        tags = list(defusedxml.ElementTree.fromstring(config).iter())
    except Exception as error:  # expat and defusedxml each have their own errors
        raise BoxelError(f"`label_config` is not a labeling configuration ({one_line(error)}).") from error
    images = {tag.get("name"): tag.get("value", "").lstrip("$") for tag in tags if tag.tag.lower() == "image"}
    for kind in ("brush", "polygon"):
        for tag in tags:
            image = tag.get("toName", "")
            if tag.tag.lower() == CONTROLS[kind][0].lower() and image in images:
                labels = [label.get("alias") or label.get("value", "") for label in tag.iter("Label")]
                return _Control(kind, tag.get("name", ""), image, images[image], labels)
    raise BoxelError(
        "the project has no BrushLabels and no PolygonLabels of an image; add them to its interface."
    )


def _predict(
    task: Task, context: Drawing | None, control: _Control, segmenter: BoxSegmenter, source: ImageSource
) -> list[dict[str, Any]]:
    """Predict the masks of the boxes of a task."""
    rectangles = _find_rectangles(task, context)
    if not rectangles:
        return []
    address = get_text(task.data, control.field)
    if not address:
        raise BoxelError(f"task {task.id} has no image in the field {control.field!r} of its data.")
    image = source.read(address, task.id)
    size = image.shape[1], image.shape[0]
    boxes, labels = zip(*[_read_box(region, size, control) for region in rectangles], strict=True)
    return list(_make_regions(segmenter(image, boxes, labels), control))


def _find_rectangles(task: Task, context: Drawing | None) -> list[dict[str, Any]]:
    """Return what has just been drawn; else the rectangles of the first annotation or latest prediction with any."""
    annotations = [one for one in task.annotations if not one.was_cancelled]
    drawings = [context] if context else [*annotations, *reversed(task.predictions)]
    found = ([it for it in one.result or [] if it.get("type") == "rectanglelabels"] for one in drawings)
    return next(filter(None, found), [])


def _read_box(region: dict[str, Any], size: tuple[int, int], control: _Control) -> tuple[list[float], str]:
    """Return the box of a rectangle in pixels, and its label."""
    value = get_dict(region, "value")
    label = next(iter(find_labels(value)), "")
    if label not in control.labels:
        what = f"the {CONTROLS[control.kind][0]} {control.name!r} of the project have no label {label!r}"
        raise BoxelError(f"{what}; add it to them.")
    if region.get("image_rotation"):
        raise BoxelError("the image is shown rotated; turn it back to get masks.")
    try:
        return read_rectangle(value, size, {})[0], label
    except (ValueError, TypeError, KeyError, OverflowError) as error:
        what = one_line(f"{type(error).__name__}: {error}")
        raise BoxelError(f"rectangle {region.get('id')!r} has no box in percent ({what}).") from error


def _make_regions(masks: BoxMasks, control: _Control) -> Iterator[dict[str, Any]]:
    """Yield a region for each mask that is not empty, with its quality as score and in words."""
    height, width = masks.image.shape[:2]
    tag = CONTROLS[control.kind][0].lower()
    for one in masks:
        mask, left, top = decode_in_box(one.rles[0])
        if not mask.size:
            continue
        value: dict[str, Any] = {"format": "rle"}
        if control.kind == "brush":
            value["rle"] = encode_brush_in_box(mask, left, top, height, width)
        else:
            (ring,) = trace_outline(one.rles[0], joined=True).rings
            value = {"points": (np.reshape(ring, (-1, 2)) / (width, height) * 100).tolist(), "closed": True}
        quality = float(np.nan_to_num(one.quality[0]))
        doubt = "" if one.trusted[0] else ", does not fit its box"
        yield {
            "id": secrets.token_urlsafe(8),
            "type": tag,
            "from_name": control.name,
            "to_name": control.image,
            "original_width": width,
            "original_height": height,
            "image_rotation": 0,
            "value": value | {tag: one.labels},
            "score": round(quality, 6),
            "meta": {"text": [f"quality {quality:.2f}{doubt}"]},
        }
