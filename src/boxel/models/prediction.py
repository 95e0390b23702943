"""Predict on many images; one bad image costs only itself."""

from __future__ import annotations

import json
import logging
import os
from collections import Counter
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import dataclass, fields, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, cast

import numpy as np
from numpy.typing import NDArray

from boxel.data.annotations import Annotations
from boxel.data.formats.geojson import SUFFIX, write_features
from boxel.data.formats.layout import make_distinct
from boxel.data.georeference import mask_features, read_georeference, require_georeference
from boxel.data.image_names import ImageNames, fold_name
from boxel.data.images import ImageError
from boxel.data.sources import ImageLike, find_images, to_image
from boxel.data.video import frame_fields
from boxel.data.windows import ArrayWindows, open_windows
from boxel.masks.boxes import Region
from boxel.models.box_masks import BoxToMask, resegment, segment_boxes
from boxel.models.exported.file import ExportedModel
from boxel.models.instances import Instances, image_id_from_name
from boxel.models.io import AnyModel, load_on
from boxel.models.label_map import LabelMap
from boxel.models.settings import InferenceConfig, SemanticInferenceConfig, check_settings, resize_factor
from boxel.models.thresholds import keep_confident, settle_draw_score
from boxel.models.tiles import predict_in_tiles
from boxel.utils.ahead import work_ahead
from boxel.utils.device import available_cores
from boxel.utils.errors import BoxelError, UsageError
from boxel.utils.files import write_text
from boxel.utils.frames import frame_stem, split_frame
from boxel.utils.locks import lock_output
from boxel.utils.progress import progress
from boxel.viz.output import refuse_folder_of_images
from boxel.viz.video import Drawings

if TYPE_CHECKING:
    from boxel.models.exported import ExportedSegmenter
    from boxel.models.semantic import Segmenter

logger = logging.getLogger(__name__)

_MIN_FACTOR = 0.25  # by which an image is resized without a warning

Result: TypeAlias = Instances | LabelMap
Config: TypeAlias = InferenceConfig | SemanticInferenceConfig


@dataclass(frozen=True)
class Prediction:
    """What a model predicts for one image."""

    index: int  # position of the image among the sources
    source: ImageLike
    image: NDArray[np.uint8] | None  # (H, W, 3) RGB, its pixels; None if they were read in parts
    result: Result

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) of the image."""
        result = self.result
        return result.image_size if isinstance(result, Instances) else result.labels.shape


@dataclass(frozen=True)
class PredictionSummary:
    """What :func:`predict` has done; its text is a line for people.

    Attributes:
        out: The COCO results file, or the folder of label maps.
        requested: Number of images that the sources name.
        images: Number of images predicted.
        errors: A message per source or image that was skipped.
        instances: Number of instances written; None for a semantic model.
        confident: Number of instances with the score that drawings need; None for a semantic model.
        draw: The folder of the drawings, if there are any.
        draw_score: Minimum score of the instances drawn, or `best`.
    """

    out: Path
    requested: int
    images: int
    errors: list[str]
    instances: int | None = None
    confident: int | None = None
    draw: Path | None = None
    draw_score: float | Literal["best"] = 0.3

    def __str__(self) -> str:
        """Return the counts and paths on one line."""
        drawn = f", drawn in {self.draw}" if self.draw else ""
        if self.instances is None:
            return f"label maps of {self.images} of {self.requested} images: {self.out}{drawn}"
        skipped = self.requested - self.images
        images = f"{self.images} images" + (f" (skipped {skipped} of {self.requested})" if skipped else "")
        best = self.draw_score == "best"
        needed = "the model's score threshold" if best else f"a score of {self.draw_score:g}"
        found = f"{self.instances or 'no'} instances in {images}: {self.out}"
        return f"{found}; {self.confident} with {needed} or more{drawn}"


def predict(
    model: AnyModel | str | Path,
    sources: str | Path | Sequence[str | Path],
    out: str | Path | None = None,
    draw: str | Path | None = None,
    *,
    boxes: Annotations | None = None,
    detector: AnyModel | str | Path | None = None,
    draw_score: float | Literal["best"] | None = None,
    batch_size: int = 1,
    every: int = 1,
    device: str = "auto",
    **settings: Any,
) -> PredictionSummary:
    """Predict on files and write the results; an image that cannot be read is reported and skipped.

    Instance segmenters and BoxCaseg write one COCO results file, semantic segmenters one PNG label map per image. The
    frames of videos are images, named e.g. ``clip.mp4#000123``.

    Args:
        model: A model, or what :func:`boxel.load` takes: a run folder, the name of a bundled model, a hub id,
            or an ONNX file of `boxel export`, which runs without PyTorch.
        sources: Image files, videos, folders and glob patterns.
        out: COCO results file (default `predictions.json`), `.geojson` file for GeoTIFFs, or folder of label maps
            (default `predictions`).
        draw: Folder for the drawings of images and videos, or a video if the only source is one; None for none.
        boxes: For BoxCaseg: annotations whose boxes get masks, found by the file names of the images.
        detector: For BoxCaseg: a model whose boxes get masks, given like ``model``.
        draw_score: Minimum score of the instances drawn; `best` for the one that the training has chosen for each
            class. If None, `best` if the model has these, else 0.3. The results keep all instances.
        batch_size: Images or tiles per batch of an instance segmenter, padded to one size, which changes scores a bit.
        every: Predict on every so many frames of a video only, from the first.
        device: Where models that are loaded here run: `auto`, `cpu`, `cuda`, `mps`.
        **settings: Fields of :class:`~boxel.models.settings.InferenceConfig` (`short_side`, `max_size`, `flip`,
            `scales`, `score_threshold`, `class_agnostic_nms`, `mask_nms`, `tile`), or for semantic segmenters of
            :class:`~boxel.models.settings.SemanticInferenceConfig` (`long_side`, `tile`, `overlap`, `flip`,
            `scales`, `shifts`, `crf`). The others are those of the training.

    Returns:
        Counts, paths and errors.

    Raises:
        UsageError: A setting is unknown, out of range, or of no use for this model.
        BoxelError: A model cannot be loaded, no source names an image, or the results cannot be written.

    Examples:
        >>> boxel.predict("runs/boxinst", "images/", draw="drawn", flip=True)  # doctest: +SKIP
    """
    _check_positive(batch_size=batch_size, every=every)
    model, finder, config = _prepare(model, boxes, detector, device, settings)
    if model.kind == "segmenter" and (batch_size, draw_score) != (1, None):
        raise UsageError("`batch_size` and `draw_score` do nothing here: the model is semantic; remove them.")
    out = _settle_out(out, is_semantic=model.kind == "segmenter")
    score = 0.3 if model.kind == "segmenter" else settle_draw_score(finder or model, draw_score)
    errors: list[str] = []
    paths = find_images(sources, lambda message: _skip(message, errors), every)
    if every != 1 and not any(split_frame(path) for path in paths):
        raise UsageError("`every` does nothing here, since there is no video; remove it.")
    predictions = iter_predictions(
        model, paths, config, batch_size, boxes=boxes, detector=finder, errors=errors
    )
    if model.kind == "segmenter":
        refuse_folder_of_images(out, paths)
    keep = partial(keep_confident, model=finder or model, threshold=score)
    writer, count = _Writer(out, paths, None if draw is None else Path(draw), keep, every), 0
    with (
        lock_output(out),
        progress(len(paths), "images") as advance,
        closing(predictions),
        writer.drawn,
        ThreadPoolExecutor(1) as pool,
        closing(work_ahead(pool, writer.write, predictions, 1)) as written,
    ):
        for _, future in written:
            future.result()  # an error in writing ends all
            count += 1
            advance(1)
        if not count:
            raise BoxelError(f"{out} is not written: none of its images can be predicted on.")
        return replace(writer.finish(count, errors, model.kind == "segmenter"), draw_score=score)


def iter_predictions(
    model: AnyModel,
    sources: Sequence[ImageLike],
    config: Config | None = None,
    batch_size: int = 1,
    *,
    boxes: Annotations | None = None,
    detector: AnyModel | None = None,
    errors: list[str] | None = None,
) -> Generator[Prediction]:
    """Predict on images in their order, each decoded once; arguments as for :func:`predict`, the model in eval mode.

    The settings are those of the model, or of the detector; of the training if None. `errors` gets a message per image
    that is skipped since it cannot be read, or since ``boxes`` does not have it; each is also logged as a warning.
    """
    errors = [] if errors is None else errors
    tiled = config is not None and config.tile is not None
    run: Callable[[int], tuple[list[Prediction], list[str]]]
    if config is not None and tiled:  # one large image at a time, in batches of tiles
        run, images = partial(_run_tiled, model, sources, batch_size, config, detector), range(len(sources))
    else:
        names = None if boxes is None else ImageNames(boxes)
        run = partial(_run_batch, model, sources, batch_size, config, boxes, names, detector)
        images = range(0, len(sources), batch_size)
    settled = tiled or boxes is not None  # whether nothing is left to warn of
    with (
        _open_pool(model, 1 if tiled else None) as (pool, workers),
        closing(work_ahead(pool, run, images, 0 if tiled else workers)) as batches,
    ):
        for _, future in batches:
            predictions, problems = future.result()
            for problem in problems:
                _skip(problem, errors)
            settled = settled or any(
                _warn_of_shrinking(one, detector or model, config) for one in predictions
            )
            yield from predictions


def image_ids(paths: Sequence[Path]) -> list[int | str]:
    """Return the image id of each file: the number or the name in its file name, or all paths if these clash."""
    ids = [image_id_from_name(path) for path in paths]
    return ids if len(set(ids)) == len(ids) else [path.as_posix() for path in paths]


def drawing_names(paths: Sequence[Path]) -> list[str]:
    """Return the file name of each drawing: that of the image, or its whole path with `_` if two have the same."""
    stems = [frame_stem(path.name) or path.stem for path in paths]
    if len(set(stems)) < len(stems):
        stems = [path.as_posix().strip("/").replace("/", "_") for path in paths]
    return [f"{stem}.jpg" for stem in stems]


def label_map_names(paths: Sequence[Path]) -> list[str]:
    """Return the path of each label map without its suffix: the stem of its image, or with folders as the images have.

    Folders are kept if two images have the same stem; those in one folder keep their suffix too.
    """
    stems = [frame_stem(path.name) or path.stem for path in paths]
    if len(set(map(fold_name, stems))) == len(stems):
        return stems
    folders = [Path(os.path.abspath(path)).parent for path in paths]
    top = os.path.commonpath(folders)
    places = [(f.relative_to(top) / stem).as_posix() for f, stem in zip(folders, stems, strict=True)]
    counts = Counter(map(fold_name, places))
    whole = [f"{place}{path.suffix}" for place, path in zip(places, paths, strict=True)]
    return make_distinct(
        (p if counts[fold_name(p)] == 1 else w for p, w in zip(places, whole, strict=True)), fold_name
    )


def _settle_out(out: str | Path | None, is_semantic: bool) -> Path:
    """Return the folder of label maps, or the file of instances; refuse one for the other."""
    path = Path(out or ("predictions" if is_semantic else "predictions.json"))
    if path.is_dir() and not is_semantic:
        raise UsageError(f"{path} is a folder; name a file to write.")
    if path.suffix.lower() in (".json", ".geojson") and is_semantic:
        raise UsageError(f"`out` is {path}, and label maps are written into a folder; name one.")
    return path


def _check_positive(**numbers: int) -> None:
    for name, number in numbers.items():
        if number < 1:
            raise UsageError(f"`{name}` is {number}; give a number from 1 up.")


def _prepare(
    model: AnyModel | str | Path,
    boxes: Annotations | None,
    detector: AnyModel | str | Path | None,
    device: str,
    settings: dict[str, Any],
) -> tuple[AnyModel, AnyModel | None, Config | None]:
    """Load the models, and check that boxes are given exactly if needed and that each setting has an effect."""
    name = str(model) if isinstance(model, str | Path) else type(model).__name__
    model = _load(model, device)
    finder = None if detector is None else _load(detector, device)
    given = [field for field, value in (("boxes", boxes), ("detector", detector)) if value is not None]
    if model.kind == "box_to_mask" and len(given) != 1:
        raise UsageError(f"{name} predicts masks for given boxes; give either `boxes` or `detector`.")
    if given and model.kind != "box_to_mask":
        raise UsageError(f"{name} predicts without boxes; remove `{given[0]}`.")
    if model.kind == "segmenter":
        _check_effect(settings, SemanticInferenceConfig, f"{name} is a semantic model")
        return model, None, cast("Segmenter | ExportedSegmenter", model).configure(**settings)
    if boxes is not None:
        _check_effect(settings, None, "masks are predicted for the given `boxes`")
        check_settings(InferenceConfig, settings)
        return model, None, None
    _check_effect(settings, InferenceConfig, f"{name} is not a semantic model")
    instances: Any = finder or model
    if instances.kind != "detector":
        raise BoxelError(
            f"the model ({type(instances).__name__}) predicts no instances; choose one that does, e.g. `boxinst`."
        )
    return model, finder, instances.configure(**settings)


def _load(model: AnyModel | str | Path, device: str) -> AnyModel:
    return load_on(model, device) if isinstance(model, str | Path) else model


def _check_effect(settings: Mapping[str, Any], kind: type | None, why: str) -> None:
    """Raise a :class:`UsageError` for a setting that another kind of model has, and this one has not."""
    every, known = (
        {field.name for config in kinds for field in fields(config)}
        for kinds in ((InferenceConfig, SemanticInferenceConfig), (kind,) if kind else ())
    )
    for setting in settings:
        if setting in every - known:
            raise UsageError(f"`{setting}` does nothing here, since {why}; remove it.")


@contextmanager
def _open_pool(model: AnyModel, workers: int | None) -> Iterator[tuple[Executor, int]]:
    """Yield what runs batches, and how many are in work at once; each takes the memory of one."""
    if not isinstance(model, ExportedModel):
        from boxel.models.inference import open_pool

        with open_pool(model, workers) as opened:
            yield opened
    else:
        workers = workers or min(available_cores(), 4)
        with ThreadPoolExecutor(workers) as pool:
            yield pool, workers


def _run_batch(
    model: AnyModel,
    sources: Sequence[ImageLike],
    batch_size: int,
    config: Config | None,
    boxes: Annotations | None,
    names: ImageNames | None,
    detector: AnyModel | None,
    start: int,
) -> tuple[list[Prediction], list[str]]:
    """Read a batch of images and predict on them; return a message for each that is skipped."""
    batch: list[tuple[int, NDArray[np.uint8]]] = []
    annotated: list[int] = []  # the image of each in `boxes`
    problems = []
    for index in range(start, min(start + batch_size, len(sources))):
        try:
            own = None if names is None else _find_annotated(names, sources[index])
            batch.append((index, to_image(sources[index])))
            annotated += [] if own is None else [own]
        except BoxelError as error:
            problems.append(f"skipped: {error}")
    results: Sequence[Result]
    if model.kind == "box_to_mask" and boxes is not None:
        results = [
            _segment_annotated(cast(BoxToMask, model), image, boxes, own)
            for (_, image), own in zip(batch, annotated, strict=True)
        ]
    else:
        results = _predict_images(model, [image for _, image in batch], config, detector)
    predictions = [
        Prediction(index, sources[index], image, replace(result, source=sources[index]))
        for (index, image), result in zip(batch, results, strict=True)
    ]
    return predictions, problems


def _run_tiled(
    model: Any, sources: Sequence[ImageLike], batch_size: int, config: Config, detector: Any, index: int
) -> tuple[list[Prediction], list[str]]:
    """Predict on an image in tiles; return a message if it is skipped."""
    source, finder = sources[index], detector or model
    try:
        with open_windows(source) as image:
            pixels = image.pixels if isinstance(image, ArrayWindows) else None
            result = predict_in_tiles(image, finder.predict_batch, config, batch_size)
            if model.kind == "box_to_mask":
                whole = image.read(Region(0, 0, *image.shape[::-1])) if pixels is None else pixels
                result = resegment(model, whole, result)
    except ImageError as error:
        return [], [f"skipped: {error}"]
    return [Prediction(index, source, pixels, replace(result, source=source))], []


def _warn_of_shrinking(prediction: Prediction, model: Any, config: Config | None) -> bool:
    """Warn if an image was shrunk so much that small objects vanish; return whether it was."""
    (height, width), config = prediction.size, config or model.configure()
    if isinstance(config, InferenceConfig):
        factor = resize_factor((height, width), config)
    else:
        factor = config.long_side / max(height, width) if config.long_side else 1.0
    if factor >= _MIN_FACTOR:
        return False
    logger.warning(
        "%s: its %d x %d pixels are shrunk to %d x %d, in which small objects vanish; set `tile` to about the side of "
        "the images of the training to predict it in parts",
        *(prediction.source, width, height, round(factor * width), round(factor * height)),
    )
    return True


def _predict_images(
    model: Any, images: list[NDArray[np.uint8]], config: Config | None, detector: Any
) -> Sequence[Result]:
    """Predict on a batch of images; BoxCaseg in the boxes of a detector."""
    finder = detector or model
    found = finder.predict_batch(images, config) if images else []
    if model.kind != "box_to_mask":
        return found
    return [resegment(model, image, own) for image, own in zip(images, found, strict=True)]


def _segment_annotated(
    model: BoxToMask, image: NDArray[np.uint8], annotations: Annotations, index: int
) -> Instances:
    """Predict masks of the boxes of one annotated image, without crowds; best first."""
    own = annotations.instances_in(index)
    own = own[annotations.has_box[own] & ~annotations.iscrowd[own]]
    boxes, labels = annotations.boxes[own], annotations.labels[own]
    instances = segment_boxes(model, image, boxes, labels, annotations.categories)
    return instances[np.argsort(-instances.scores, kind="stable")]


def _find_annotated(names: ImageNames, source: ImageLike) -> int:
    """Return the index of the image of a dataset that a file is, by its name, or by its path among several."""
    image = names.find_name(Path(source).resolve().as_posix()) if isinstance(source, str | Path) else None
    if image is None:
        raise BoxelError(f"{source}: {names.data.file} has no image of this name, or several.")
    return image


def _skip(message: str, errors: list[str]) -> None:
    logger.warning(message)
    errors.append(message)


class _Writer:
    """Write predictions: label maps and drawings at once, COCO results at the end."""

    def __init__(
        self,
        out: Path,
        paths: Sequence[Path],
        draw: Path | None,
        keep: Callable[[Instances], Instances],
        every: int,
    ):
        self.out, self.paths, self.keep = out, paths, keep
        self.ids, self.names = image_ids(paths), label_map_names(paths)
        self.drawn = Drawings(draw, paths, drawing_names(paths), every)
        self.results: list[dict[str, Any]] = []
        self.confident = 0
        self.is_geojson = out.suffix.lower() == SUFFIX
        for path in paths if self.is_geojson else ():
            require_georeference(path)  # before minutes of work

    def write(self, prediction: Prediction) -> None:
        index, result = prediction.index, prediction.result
        if isinstance(result, LabelMap):
            suffix = ".tif" if read_georeference(self.paths[index]) else ".png"
            result.save(self.out / f"{self.names[index]}{suffix}")
        else:
            names = {"file_name": self.paths[index].name} | frame_fields(self.paths[index])
            rows = [row | names for row in result.to_coco(self.ids[index])]
            self.results += self._make_features(index, result) if self.is_geojson else rows
            result = self.keep(result)
            self.confident += len(result)
        if self.drawn.out:
            self.drawn.write(result.plot(prediction.image), index)

    def _make_features(self, index: int, instances: Instances) -> list[dict[str, Any]]:
        """Return the features of the instances of an image in GeoJSON."""
        path = self.paths[index]
        properties = [
            {"category": name, "score": round(float(score), 5), "image": path.name}
            for name, score in zip(instances.names, instances.scores, strict=True)
        ]
        return mask_features(path, instances.rles, properties)

    def finish(self, count: int, errors: list[str], semantic: bool) -> PredictionSummary:
        summary = PredictionSummary(self.out, len(self.paths), count, errors, draw=self.drawn.out)
        if semantic:
            self.out.mkdir(parents=True, exist_ok=True)
            return summary
        if self.is_geojson:
            write_features(self.results, self.out)
        else:
            write_text(self.out, json.dumps(self.results))
        if count and not self.results:
            logger.warning("no detections in any image; consider training longer.")
        return replace(summary, instances=len(self.results), confident=self.confident)
