"""A model as a web service: images in, COCO JSON out."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from threading import BoundedSemaphore
from typing import Any

import anyio.to_thread
import numpy as np
from fastapi import FastAPI, Request
from numpy.typing import NDArray
from pycocotools import mask as coco_mask
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from boxel import __version__
from boxel.data.annotations import Category
from boxel.masks.boxes import to_corners
from boxel.masks.rle import encode
from boxel.models.box_masks import segment_boxes
from boxel.models.exported.file import ExportedModel
from boxel.models.instances import Instances
from boxel.models.io import AnyModel, load_on
from boxel.models.label_map import LabelMap
from boxel.review.app import answer_errors
from boxel.review.guard import Receive, Scope, Send, answer
from boxel.review.serve import run_app
from boxel.serving.images import decode_file
from boxel.serving.serve import ToolGuard, is_loopback, listen_announced, log_error, warn_if_open
from boxel.utils.device import available_cores
from boxel.utils.errors import BoxelError

DEFAULT_PORT = 8760
"""The port if none is given; if another program uses it, any free one."""

MAX_BODY = 60_000_000
"""Maximum bytes of a request."""

MAX_PIXELS = 64_000_000
"""Images of more pixels are refused before they are decoded."""

MAX_IMAGES = 32
"""Maximum number of images of a request."""

MAX_WAITING = 32
"""Requests that are read and predicted at a time; others are answered with 503."""

MAX_BOXES = 1000
"""Maximum number of boxes of an image."""

_MAX_WAIT = 30  # seconds for requests that are under way when the server ends


class Batch(BaseModel):
    """The body of a request as JSON."""

    model_config = ConfigDict(extra="forbid")

    images: list[str] = Field(min_length=1, max_length=MAX_IMAGES)  # image files as base64
    boxes: list[list[tuple[float, float, float, float]]] | None = None  # of each image, for BoxCaseg


@dataclass(frozen=True)
class ModelServeConfig:
    """Which model is served, where and to whom.

    Args:
        model: A run folder or an exported file, as for :func:`boxel.load`.
        device: Where the model runs.
        host: The address to listen at.
        port: The port; the default or another free one if None.
        token: Password of each request (HTTP Basic, any user name); None for no password.
    """

    model: str
    device: str = "auto"
    host: str = "127.0.0.1"
    port: int | None = None
    token: str | None = None


def serve_model(config: ModelServeConfig, on_start: Callable[[str], None] = print) -> None:
    """Answer requests of predictions until Ctrl-C or SIGTERM, and then those that are under way.

    Args:
        config: Which model, where and to whom.
        on_start: Receives the address once requests are accepted.

    Raises:
        BoxelError: The model cannot be loaded, or the port cannot be used.
    """
    warn_if_open(config.host, config.token)
    service = ModelService(load_on(config.model, config.device), config.model)
    with listen_announced(config.port, config.host, DEFAULT_PORT) as listener:
        port = listener.getsockname()[1]
        guard = ModelGuard(make_app(service), config.token or "", port, is_loopback(config.host))
        run_app(guard, listener, lambda: on_start(f"http://{config.host}:{port}"), _MAX_WAIT)


class ModelService:
    """Predictions of a model for images as they are sent; a few are in work at once."""

    def __init__(self, model: AnyModel, name: str) -> None:
        self.model: Any = model
        self.name = name
        self._slots = BoundedSemaphore(min(available_cores(), 4) if isinstance(model, ExportedModel) else 1)

    def describe(self) -> dict[str, Any]:
        """Return what the model is, and what it takes."""
        return {
            "model": Path(self.name).name,
            "kind": self.model.kind,
            "categories": _list_categories(self.model.categories),
            "boxel": __version__,
            "max_bytes": MAX_BODY,
            "max_pixels": MAX_PIXELS,
            "max_images": MAX_IMAGES,
        }

    def predict(
        self, contents: Sequence[bytes], boxes: Sequence[Any] | None, settings: dict[str, Any]
    ) -> dict[str, Any]:
        """Return the predictions for image files as a COCO dataset."""
        takes_boxes = self.model.kind == "box_to_mask"
        if takes_boxes and (boxes is None or len(boxes) != len(contents)):
            raise BoxelError(
                "this model predicts masks of given boxes; give `boxes`, a list of them for each image."
            )
        if boxes is not None and not takes_boxes:
            raise BoxelError("this model predicts without boxes; leave `boxes` out.")
        if takes_boxes and settings:
            raise BoxelError(f"this model has no setting `{next(iter(settings))}`; leave it out.")
        config = None if takes_boxes else self.model.configure(**settings)
        images: list[dict[str, Any]] = []
        rows: list[dict[str, Any]] = []
        for number, content in enumerate(contents, 1):
            with self._slots:
                pixels = decode_file(content, f"image {number}", MAX_PIXELS)
                result = self._predict_one(pixels, boxes[number - 1] if boxes else (), config)
            images.append({"id": number, "width": pixels.shape[1], "height": pixels.shape[0]})
            rows += _describe_map(result, number) if isinstance(result, LabelMap) else result.to_coco(number)
        for number, row in enumerate(rows, 1):
            row |= {"id": number, "area": int(coco_mask.area(row["segmentation"])), "iscrowd": 0}
        return {"images": images, "annotations": rows, "categories": _list_categories(self.model.categories)}

    def _predict_one(self, pixels: NDArray[np.uint8], boxes: Any, config: Any) -> Instances | LabelMap:
        if self.model.kind != "box_to_mask":
            return self.model.predict_batch([pixels], config)[0]
        corners = to_corners(boxes)
        height, width = pixels.shape[:2]
        inside = (corners[:, :2] < [width, height]).all(1) & (corners[:, 2:] > 0).all(1)
        if len(corners) > MAX_BOXES or not (inside & (corners[:, :2] < corners[:, 2:]).all(1)).all():
            raise BoxelError(
                f"a box does not meet the image of {width} x {height} pixels, or there are more than {MAX_BOXES}; "
                "give x0, y0, x1, y1 in pixels."
            )
        labels = np.zeros(len(corners), dtype=np.int64)
        return segment_boxes(self.model, pixels, corners, labels, self.model.categories[:1])


def make_app(service: ModelService) -> FastAPI:
    """Make the application of a service; it has no protection of its own, see :class:`ModelGuard`."""
    app = FastAPI(title="boxel", docs_url=None, redoc_url=None, openapi_url=None)
    answer_errors(app, log_error)

    @app.get("/")
    def describe() -> dict[str, Any]:
        return service.describe()

    @app.get("/health")
    def health() -> dict[str, str]:
        return {"status": "ok"}

    @app.post("/predict")
    async def predict(request: Request, score_threshold: str | None = None) -> dict[str, Any]:
        contents, boxes = _read_body(await request.body(), request.headers.get("content-type", ""))
        settings = {} if score_threshold is None else {"score_threshold": _read_score(score_threshold)}
        return await anyio.to_thread.run_sync(partial(service.predict, contents, boxes, settings))

    return app


def _read_body(body: bytes, kind: str) -> tuple[list[bytes], list[Any] | None]:
    """Return the image files of a request and the boxes of each, if there are any."""
    if kind.partition(";")[0].strip() != "application/json":
        if not body:
            raise BoxelError("the request has no image; send the bytes of an image file as its body.")
        return [body], None
    try:
        batch = Batch.model_validate_json(body)
        return [base64.b64decode(text, validate=True) for text in batch.images], batch.boxes
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "the body"
        raise BoxelError(
            f"{where}: {first['msg'][:200]}; send images as base64, and boxes if needed."
        ) from None
    except ValueError as error:
        raise BoxelError(f"an image is not base64 ({error}); send the bytes of image files.") from None


def _read_score(text: str) -> Any:
    try:
        return text if text == "best" else float(text)
    except ValueError:
        raise BoxelError(
            f"`score_threshold` is {json.dumps(text[:40])}; give a number from 0 to 1, or best."
        ) from None


def _describe_map(result: LabelMap, image: int) -> list[dict[str, Any]]:
    """Return an annotation per class of a label map, scored by the mean probability of its pixels."""
    rows = []
    for label in np.unique(result.labels).tolist():
        mask = result.labels == label
        rle = encode(mask)
        rows.append(
            {
                "image_id": image,
                "category_id": result.classes[label].id,
                "bbox": coco_mask.toBbox(rle).tolist(),
                "score": round(float(result.scores[mask].mean()), 5),
                "segmentation": rle,
            }
        )
    return rows


def _list_categories(categories: Sequence[Category]) -> list[dict[str, Any]]:
    return [{"id": category.id, "name": category.name} for category in categories]


class ModelGuard(ToolGuard):
    """Pass on only requests of programs, with the password if there is one, and so many at a time.

    Args:
        app: What answers requests that pass.
        token: The password; empty for none.
        port: The port of the server.
        local: Whether it listens for this machine only, so that its `Host` must be this machine.
    """

    _MAX_BODY = MAX_BODY
    _PAGES = 403, "requests of web pages are refused; send them from a program"

    def __init__(self, app: Any, token: str, port: int, local: bool) -> None:
        super().__init__(app, token, port)
        self._local, self._waiting = local, 0

    def _refuse(self, scope: Scope, headers: dict[str, str]) -> tuple[int, str] | None:
        if self._local and headers.get("host", "") not in self.hosts:
            return 421, "this server answers requests to its own address only"
        return super()._refuse(scope, headers)

    async def _pass_on(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let the application answer, unless too many requests wait."""
        if scope["method"] == "GET":
            await super()._pass_on(scope, receive, send)
        elif self._waiting >= MAX_WAITING:
            message = f"{MAX_WAITING} requests are waiting; send it again in a second"
            await answer(send, 503, message, {"retry-after": "1"})
        else:
            self._waiting += 1
            try:
                await super()._pass_on(scope, receive, send)
            finally:
                self._waiting -= 1
