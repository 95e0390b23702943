"""The routes of the review page."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from importlib.resources import files
from pathlib import Path
from typing import Annotated, Any

from fastapi import Body, FastAPI, Query, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import FileResponse, JSONResponse, Response
from fastapi.staticfiles import StaticFiles
from starlette.background import BackgroundTask
from starlette.exceptions import HTTPException

from boxel.data import write
from boxel.review.decisions import Conflict
from boxel.review.editing import few_vertices
from boxel.review.pictures import MAX_SIDE
from boxel.review.requests import ChangeRequest, NewObject
from boxel.review.selection import Order, Selection, Size, count_states, select
from boxel.review.service import ReviewService
from boxel.review.session import Review, State
from boxel.utils.errors import BoxelError

MAX_PAGE = 200
"""Maximum number of objects per request."""

_NUMBERS = r"^[0-9]{1,12}(,[0-9]{1,12})*$"  # with commas between them
_MAX_MESSAGE = 300  # characters of an error
# Of pictures, whose address holds their version.
_FOREVER = {"cache-control": "private, max-age=86400, immutable"}


def make_app(service: ReviewService) -> FastAPI:
    """Make the application of a review; it has no protection of its own, see :class:`~boxel.review.guard.Guard`."""
    app = FastAPI(title="boxel review", docs_url=None, redoc_url=None, openapi_url=None)
    review = service.review
    page = Path(str(files("boxel.review") / "page"))

    @app.get("/")
    def index() -> FileResponse:
        return FileResponse(page / "index.html")

    @app.get("/api/dataset")
    def dataset() -> dict[str, Any]:
        return service.describe()

    @app.get("/api/progress")
    def progress() -> dict[str, int]:
        return count_states(review)

    @app.get("/api/guarantee")
    def guarantee() -> dict[str, str]:
        return {"text": service.describe_guarantee()}

    @app.get("/api/selection")
    def selection(
        order: Order = "worst",
        state: State | None = None,
        category: str | None = None,
        size: Size | None = None,
        min_quality: float = 0.0,
        max_quality: float = 1.0,
        suspect: bool = False,
        image: int | None = None,
    ) -> dict[str, list[int]]:
        if category is not None and category not in review.names:
            raise HTTPException(404, f"there is no class {category!r}")
        wanted = Selection(order, state, category, size, min_quality, max_quality, suspect, image)
        return {"rows": select(review, wanted).tolist()}

    @app.get("/api/objects")
    def objects(
        rows: Annotated[str, Query(pattern=_NUMBERS, max_length=4000)],
    ) -> list[dict[str, Any]]:
        return [service.summarize(_check_row(review, row)) for row in _split(rows)]

    @app.get("/api/objects/{row}")
    def one_object(row: int) -> dict[str, Any]:
        return service.detail(_check_row(review, row))

    @app.post("/api/objects/{row}")
    def change(row: int, request: ChangeRequest) -> dict[str, Any]:
        return service.change(_check_row(review, row), request.version, request.change)

    @app.get("/api/next")
    def next_objects(count: Annotated[int, Query(ge=1, le=MAX_PAGE)] = 20) -> list[dict[str, Any]]:
        return service.next(count)

    @app.get("/api/export")
    def export() -> FileResponse:
        folder = tempfile.TemporaryDirectory(prefix="boxel-review-")
        out = Path(folder.name, "reviewed.json")
        write(review.apply(), out)
        return FileResponse(out, filename="reviewed.json", background=BackgroundTask(folder.cleanup))

    _add_images(app, service)
    _add_pictures(app, service)
    answer_errors(app, service.describe_error)

    @app.exception_handler(Conflict)
    def conflict(request: Request, error: Conflict) -> JSONResponse:
        return JSONResponse({"error": str(error)}, 409)

    app.mount("/page", StaticFiles(directory=page), name="page")
    return app


def _add_images(app: FastAPI, service: ReviewService) -> None:
    """Add the routes of images, and of what is put into them."""
    review = service.review

    @app.get("/api/images")
    def images(rows: Annotated[str, Query(pattern=_NUMBERS, max_length=4000)]) -> list[dict[str, Any]]:
        return service.list_images([_check_image(review, image) for image in _split(rows)])

    @app.post("/api/images")
    def upload(
        name: Annotated[str, Query(max_length=400)],
        content: Annotated[bytes, Body(media_type="application/octet-stream")],
    ) -> dict[str, Any]:
        if not service.config.takes_images:
            raise HTTPException(403, "this review takes no more images; start it with a folder of images")
        return service.list_images([review.add_image(name, content)])[0]

    @app.get("/api/images/{image}")
    def one_image(image: int) -> dict[str, Any]:
        return service.image_detail(_check_image(review, image))

    @app.post("/api/images/{image}/objects")
    def add(image: int, new: NewObject) -> dict[str, Any]:
        return service.add(_check_image(review, image), new)


def _add_pictures(app: FastAPI, service: ReviewService) -> None:
    """Add the routes of pictures, and of the vertices that are drawn over them."""

    @app.get("/api/objects/{row}/vertices")
    def vertices(row: int) -> list[list[tuple[float, float]]]:
        rle = service.review.rle(_check_row(service.review, row))
        return [] if rle is None else few_vertices(rle)

    @app.get("/api/objects/{row}/thumbnail")
    def thumbnail(row: int, plain: bool = False) -> Response:
        return Response(
            service.pictures.thumbnail(_check_row(service.review, row), plain),
            media_type="image/webp",
            headers=_FOREVER,
        )

    @app.get("/api/images/{image}/part")
    def part(
        image: int,
        x0: float,
        y0: float,
        x1: float,
        y1: float,
        width: Annotated[int, Query(ge=1, le=MAX_SIDE)],
    ) -> Response:
        content = service.pictures.part(_check_image(service.review, image), (x0, y0, x1, y1), width)
        return Response(content, media_type="image/jpeg", headers=_FOREVER)


def answer_errors(app: FastAPI, describe: Callable[[BoxelError], str]) -> None:
    """Let each error become one sentence."""

    @app.exception_handler(BoxelError)
    def failed(request: Request, error: BoxelError) -> JSONResponse:
        return JSONResponse({"error": describe(error)}, 422)

    @app.exception_handler(RequestValidationError)
    def invalid(request: Request, error: RequestValidationError) -> JSONResponse:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"][1:]))
        message = first["msg"][:_MAX_MESSAGE]  # it may quote the request
        return JSONResponse({"error": f"{where}: {message}" if where else message}, 422)

    @app.exception_handler(HTTPException)
    def missing(request: Request, error: HTTPException) -> JSONResponse:
        return JSONResponse({"error": error.detail}, error.status_code, error.headers)

    @app.exception_handler(Exception)
    def unexpected(request: Request, error: Exception) -> JSONResponse:
        return JSONResponse({"error": "this failed in boxel itself; the terminal shows where"}, 500)


def _split(rows: str) -> list[int]:
    """Return the numbers that a request names."""
    numbers = [int(row) for row in rows.split(",")]
    if len(numbers) > MAX_PAGE:
        raise HTTPException(422, f"a request names at most {MAX_PAGE} rows")
    return numbers


def _check_row(review: Review, row: int) -> int:
    if not 0 <= row < len(review):
        raise HTTPException(404, f"there is no object {row}")
    return row


def _check_image(review: Review, image: int) -> int:
    if not 0 <= image < len(review.data):
        raise HTTPException(404, f"there is no image {image}")
    return image
