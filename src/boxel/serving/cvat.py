"""CVAT's protocol of serverless functions: the mask in a box, as from an interactor of Nuclio.

The protocol: `LambdaGateway` and `LambdaFunction` in `cvat/apps/lambda_manager/views.py`, and what the page makes of an
answer in `cvat-core/src/lambda-manager.ts`. CVAT calls a function through Nuclio's dashboard, or directly at its port.
"""

from __future__ import annotations

import re
from typing import Annotated, Any

import numpy as np
from fastapi import FastAPI, Header, HTTPException
from pydantic import BaseModel, Field

from boxel.data.formats.row_runs import encode_rows
from boxel.labeling.box_segmenter import BoxMasks, BoxSegmenter
from boxel.masks.rle import decode_in_box
from boxel.serving.images import decode_base64
from boxel.utils.errors import BoxelError

DEFAULT_PORT = 8070
"""The port at which CVAT looks for Nuclio's dashboard."""

NAME = "boxel"
"""The name of the function."""

SHAPES_SINCE = (2, 75)
"""The version from which on CVAT's own packages answer with shapes, which hold a confidence."""

_MAX_POINTS = 200


class Call(BaseModel):
    """A call of the function; points inside or outside of the object are ignored."""

    image: str
    obj_bbox: Annotated[list[tuple[float, float]], Field(max_length=_MAX_POINTS)] | None = None


def add_cvat(app: FastAPI, segmenter: BoxSegmenter, teacher: str, port: int) -> None:
    """Add the routes that CVAT calls."""
    function = _describe(teacher, port)

    @app.get("/api/functions")
    def functions() -> dict[str, Any]:
        return {NAME: function}

    @app.get("/api/functions/{name}")
    def one_function(name: str) -> dict[str, Any]:
        if name != NAME:
            raise HTTPException(404, f"there is no function {name!r}, only {NAME!r}")
        return function

    @app.post("/")
    @app.post("/api/function_invocations")
    def invoke(
        call: Call,
        x_nuclio_function_name: Annotated[str, Header()] = NAME,
        user_agent: Annotated[str, Header()] = "",
    ) -> dict[str, Any]:
        one_function(x_nuclio_function_name)
        corners = call.obj_bbox or []
        if not corners or len(corners) % 2:
            raise BoxelError("the call has no box; draw one around the object.")
        pairs = np.reshape(corners, (-1, 2, 2))
        boxes = np.concatenate([pairs.min(axis=1), pairs.max(axis=1)], axis=1)  # (N, 4) xyxy
        masks = segmenter(decode_base64(call.image, "the image of the call"), boxes)
        version = re.match(r"CVAT/(\d+)\.(\d+)", user_agent)
        takes_shapes = version is not None and tuple(map(int, version.groups())) >= SHAPES_SINCE
        return {"shapes": _to_shapes(masks)} if takes_shapes else _to_mask(masks)


def _describe(teacher: str, port: int) -> dict[str, Any]:
    """Return the function as Nuclio describes one; all annotations are texts."""
    annotations = {
        "name": f"boxel ({teacher})",
        "type": "interactor",
        "version": "2",
        "spec": "",
        "min_pos_points": "0",
        "min_neg_points": "-1",
        "startswith_box": "true",
        "help_message": "Draw a box around an object; boxel predicts its mask.",
        "animated_gif": "",
    }
    return {
        "metadata": {"name": NAME, "namespace": "nuclio", "annotations": annotations},
        "spec": {"description": "Masks of objects in boxes, with their quality"},
        "status": {"state": "ready", "httpPort": port},
    }


def _to_shapes(masks: BoxMasks) -> list[dict[str, Any]]:
    """Return the masks that are not empty as shapes, whose confidence is the quality."""
    shapes = []
    for one in masks:
        mask, left, top = decode_in_box(one.rles[0])
        if mask.size:
            runs = map(int, encode_rows(mask).split(", "))
            points = [*runs, left, top, left + mask.shape[1] - 1, top + mask.shape[0] - 1]
            confidence = {"spec_id": 0, "value": f"{np.nan_to_num(one.quality[0]):.3f}"}
            shapes.append({"type": "mask", "points": points, "attributes": [confidence]})
    return shapes


def _to_mask(masks: BoxMasks) -> dict[str, Any]:
    """Return one mask of the whole image, as older versions of the page need it."""
    quality = round(float(np.nan_to_num(masks.quality).mean()), 6)
    return {"mask": masks.masks.any(axis=0).astype(int).tolist(), "confidence": quality}
