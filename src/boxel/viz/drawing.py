"""Draw the images of a dataset into a folder and on contact sheets, also beside the truth."""

from __future__ import annotations

import itertools
import logging
import math
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePath

import cv2
import numpy as np
from numpy.typing import NDArray

from boxel.data.annotations import Annotations
from boxel.data.images import SUFFIXES, ImageError, describe_missing, read_image
from boxel.data.label_maps import make_label_map, pixel_classes
from boxel.masks.rle import Rle
from boxel.utils.config import parse_config
from boxel.utils.errors import BoxelError, OutputError, UsageError
from boxel.utils.printable import count_noun
from boxel.utils.progress import progress
from boxel.viz.colors import BLACK, PALETTE, WHITE, pick_color
from boxel.viz.config import DrawConfig
from boxel.viz.output import (
    contact_sheet,
    mirror_names,
    refuse_folder_of_images,
    same_file,
    save_image,
    warn_of_other_drawings,
)
from boxel.viz.overlays import (
    Crop,
    Objects,
    draw_legend,
    draw_objects,
    make_texts,
    name_colors,
    overlay_labels,
    text_size,
)
from boxel.viz.pairing import match_objects, pair_with_truth, rank_images
from boxel.viz.text import clean_text, line_height, shorten, text_mask, write_text

logger = logging.getLogger(__name__)

_CELL = 360  # side of a drawing on a contact sheet, in pixels
_COLUMNS, _PER_PAGE = 5, 40
_CAPTION = 14  # size of the text on it
_GAP = 8  # between two panels, in pixels at 1000 pixels of width


@dataclass(frozen=True)
class DrawSummary:
    """What :func:`draw_dataset` has done; its text is a line for people.

    Attributes:
        requested: Number of images that were to be drawn.
        out: Folder of the drawings, if they were written.
        sheets: The pages of the contact sheet.
        errors: A message per image that was skipped; each is also logged.
        reason: Why nothing was to be drawn; empty if something was.
    """

    requested: int
    out: Path | None = None
    sheets: list[Path] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)
    reason: str = ""

    def __str__(self) -> str:
        """Return the counts and paths on one line."""
        if self.reason:
            return f"{self.reason}; nothing is drawn."
        places = [str(self.out)] if self.out else []
        if self.sheets:
            pages = f" to {self.sheets[-1]}" if len(self.sheets) > 1 else ""
            places.append(f"contact sheet {self.sheets[0]}{pages}")
        drawn = self.requested - len(self.errors)
        return f"{drawn} of {self.requested} images drawn: {', '.join(places)}"


def draw_dataset(
    data: Annotations,
    out: str | os.PathLike[str] | None,
    truth: Annotations | None = None,
    config: DrawConfig | None = None,
    **settings: object,
) -> DrawSummary:
    """Draw the images of a dataset into a folder, each decoded once.

    Small images are enlarged, so that their labels can be read. An image that cannot be read is logged and skipped.

    Args:
        data: The dataset. Detections become one by :func:`boxel.evaluation.to_annotations`.
        out: Folder of the drawings, JPEG files in the same folders and with the same names as the images. None: only
            the contact sheet is written.
        truth: Annotations of the same images, by their file names, which are drawn on the left of the others.
        config: The settings.
        **settings: Fields of :class:`DrawConfig` that override ``config``.

    Returns:
        Counts, paths and errors.

    Raises:
        UsageError: ``out`` holds the images, a setting is invalid, or nothing is known by which to find the worst.
        BoxelError: The folder cannot be written, or ``truth`` has none of the images.

    Examples:
        >>> from boxel.data import example_scenes
        >>> scenes = example_scenes(2)
        >>> summary = draw_dataset(scenes, scenes.root / "drawn", style="outline", sheet=str(scenes.root / "all.png"))
        >>> sorted(path.name for path in (scenes.root / "drawn").iterdir()), summary.errors
        (['000000.jpg', '000001.jpg'], [])
    """
    config = parse_config(DrawConfig, {**(vars(config) if config else {}), **settings}, "draw")
    folder = None if out is None else Path(out)
    _check_outputs(data, folder, config.sheet)
    names = mirror_names(data.paths)  # of all images, so that the choice does not change them
    pairs = [None] * len(data) if truth is None else pair_with_truth(data, truth)
    if config.min_score:  # objects of unknown quality stay
        data = data.select_instances(~(data.quality < config.min_score))
    images, notes = _choose(data, truth, pairs, config)
    if folder is not None:
        warn_of_other_drawings(folder, [names[image] for image in images])
    artist = _Artist(data, truth, pairs, config)
    sheet = _Sheet(config, artist)
    errors = []
    with progress(len(images), "images") as advance:
        for image in images:
            try:
                pixels = read_image(data.image_path(image))
                if folder is not None:
                    _save(artist.draw(image, pixels), folder / names[image], data.image_path(image))
                sheet.add(image, pixels, notes.get(image, ""))
            except OutputError:  # the others would not fit either
                raise
            except BoxelError as error:
                if not isinstance(error, ImageError) or error.kind != "image-missing":
                    logger.warning("skipped: %s", error)
                errors.append(str(error))
            advance(1)
    sheet.finish()
    artist.report()
    if errors and (missing := describe_missing(data.image_path(image) for image in images)):
        logger.warning("%s", missing)
    return DrawSummary(len(images), folder, sheet.files, errors)


def _check_outputs(data: Annotations, out: Path | None, sheet: str | None) -> None:
    """Refuse to write among the images or over one of them."""
    if out is None and sheet is None:
        raise UsageError("there is nothing to write; give `out`, `sheet` or both.")
    if out is not None:
        refuse_folder_of_images(out, (data.image_path(image) for image in range(len(data))))
    if sheet is not None:
        if Path(sheet).suffix.lower() not in SUFFIXES:
            raise UsageError(f"{sheet}: end the name of `sheet` on .jpg or .png.")
        if any(same_file(Path(sheet), data.image_path(image)) for image in range(len(data))):
            raise UsageError(f"{sheet} is one of the images; give another file as `sheet`.")


def _choose(
    data: Annotations, truth: Annotations | None, pairs: Sequence[int | None], config: DrawConfig
) -> tuple[list[int], dict[int, str]]:
    """Return the images to draw, in order, and what is noted on some of them."""
    images = [image for image in range(len(data)) if truth is None or pairs[image] is not None]
    if config.worst is None:
        return images[: config.count], {}
    ranked = rank_images(data, truth, pairs, images)
    if not ranked:
        raise UsageError(
            f"`worst` does nothing here, since no object of {data.file or 'the dataset'} has a quality or a score; "
            "leave it out, or give `truth`."
        )
    worst = list(ranked)[: config.worst][: config.count]
    return worst, {image: f"{ranked[image]:.2f}" for image in worst}


def _save(drawn: NDArray[np.uint8], target: Path, source: Path) -> None:
    if same_file(target, source):
        raise BoxelError(f"{target}: this is the image {source}, by a link; name another folder.")
    save_image(drawn, target)


# ---------------------------------------------------------------- one image


def draw_thumbnail(data: Annotations, image: int, pixels: NDArray[np.uint8], side: int) -> NDArray[np.uint8]:
    """Draw boxes and masks on a small copy of an image, whose longer side has about ``side`` pixels."""
    config = DrawConfig(labels=False, line_width=1)
    return _Artist(data, None, [None] * len(data), config).draw(image, pixels, side)


def draw_truth(data: Annotations, image: int, pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Draw the objects of an image in the colors in which a model that learns these classes draws its predictions."""
    artist = _Artist(data, None, [None] * len(data), DrawConfig())
    artist.colors = list(range(len(data.categories)))
    return artist.draw(image, pixels)


def join_with_truth(truth: NDArray[np.uint8], prediction: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Put two drawings of an image side by side, each under its caption."""
    width = max(truth.shape[1], prediction.shape[1])  # one may be enlarged
    return _join_panels([_widen(panel, width) for panel in (truth, prediction)], ("truth", "prediction"))


def number_colors(data: Annotations, first: Annotations | None = None) -> list[int]:
    """Return the number of each category's color: its id if all ids are small, else its position.

    Another dataset that comes ``first`` decides the colors of the categories that both have, by their names.

    Examples:
        >>> from boxel.data.samples import sample_images
        >>> data = sample_images()
        >>> number_colors(data) == [category.id for category in data.categories]
        True
    """
    ids = [category.id for category in data.categories]
    numbers = ids if all(0 <= id < len(PALETTE) for id in ids) else list(range(len(ids)))
    if first is None:
        return numbers
    known = {c.name: number for c, number in zip(first.categories, number_colors(first), strict=True)}
    free = (number for number in itertools.count() if number not in known.values())
    return [known[c.name] if c.name in known else next(free) for c in data.categories]


class _Artist:
    """Draws images of a dataset, alone or beside the truth."""

    def __init__(
        self, data: Annotations, truth: Annotations | None, pairs: Sequence[int | None], config: DrawConfig
    ) -> None:
        self.data, self.truth, self.pairs, self.config = data, truth, pairs, config
        self.colors = number_colors(data, truth)
        self.truth_colors = [] if truth is None else number_colors(truth)
        self.bad_masks: dict[tuple[str, int], str] = {}

    def draw(self, image: int, pixels: NDArray[np.uint8], side: int | None = None) -> NDArray[np.uint8]:
        """Draw an image; ``side`` resizes it, so that its longer side has about so many pixels."""
        panels = [self._draw_one(*shown, pixels, side) for shown in self._shown(image)]
        if len(panels) == 1:
            return panels[0]
        width = max(panel.shape[1] for panel in panels)  # one may be enlarged, if it is a crowd
        captions = self._captions(image) if side is None else ("truth", "prediction")
        return _join_panels([_widen(panel, width) for panel in panels], captions)

    def _shown(self, image: int) -> list[tuple[Annotations, int, list[int]]]:
        """Return each dataset that is drawn of an image, its index there, and the colors; the truth first."""
        other = self.pairs[image]
        truth = [] if self.truth is None or other is None else [(self.truth, other, self.truth_colors)]
        return [*truth, (self.data, image, self.colors)]

    def report(self) -> None:
        """Log one sentence on the masks that could not be drawn."""
        if self.bad_masks:
            count, first = len(self.bad_masks), next(iter(self.bad_masks.values()))
            several = count_noun(count, "mask is", "masks are")
            logger.warning("%s drawn as a box only: %s", several, first)

    def colors_in(self, image: int) -> dict[int, str]:
        """Return the names of the classes that are drawn in an image, by the number of their color."""
        return {
            colors[label]: clean_text(data.categories[label].name)
            for data, index, colors in self._shown(image)
            for label in data.labels[data.instances_in(index)].tolist()
        }

    def _draw_one(
        self,
        data: Annotations,
        image: int,
        colors: Sequence[int],
        pixels: NDArray[np.uint8],
        side: int | None,
    ) -> NDArray[np.uint8]:
        size = pixels.shape[:2]
        scale = 1.0 if side is None else min(1.0, side / max(size))
        if data.label_maps[image] is not None and not len(data.instances_in(image)):
            names = [category.name for category in pixel_classes(data)]
            labels = shrink(make_label_map(data, image, size), scale, nearest=True)
            return overlay_labels(shrink(pixels, scale), labels, names)
        objects = self._objects(data, image, size, colors)
        if side is None:
            return draw_objects(pixels, objects, self.config, scale=None)
        small = _shrink_objects(objects, scale)
        larger = max(1, side // max(size))
        return draw_objects(shrink(pixels, scale), small, self.config, scale=larger, legend=False)

    def _objects(
        self, data: Annotations, image: int, size: tuple[int, ...], colors: Sequence[int]
    ) -> Objects:
        own = data.instances_in(image)
        masks: list[Rle | None] = []
        for instance in own.tolist():
            try:
                masks.append(data.rle(instance, (size[0], size[1])))
            except BoxelError as error:
                self.bad_masks[data.file, instance] = str(error)
                masks.append(None)
        labels = data.labels[own].tolist()
        names = [data.categories[label].name for label in labels]
        words = [
            name + " crowd" * bool(data.iscrowd[k]) + " not trusted" * (not data.trusted[k])
            for name, k in zip(names, own.tolist(), strict=True)
        ]
        texts = make_texts(words, data.quality[own])
        if self.config.color_by == "class":
            numbers = [colors[label] for label in labels]
        else:
            numbers, names = list(range(1, len(own) + 1)), texts
        return Objects(data.boxes[own], masks, numbers, texts, name_colors(numbers, names))

    def _captions(self, image: int) -> tuple[str, str]:
        other = self.pairs[image]
        assert self.truth is not None and other is not None
        own, gt = self.data.instances_in(image), self.truth.instances_in(other)
        names = _name_files(self.truth.file, self.data.file)
        left = f"truth: {names[0]}, {count_noun(len(gt), 'object')}"
        right = f"prediction: {names[1]}, {count_noun(len(own), 'object')}"
        gt = gt[~self.truth.iscrowd[gt]]
        if len(gt):
            ious = match_objects(self.truth, gt, self.data, own)
            right += f", mean IoU {ious.mean():.2f}"
        return left, right


def _name_files(*files: str) -> list[str]:
    """Return the name of each file, with as many folders as it takes to tell them apart."""
    parts = [PurePath(file).parts for file in files]
    for count in range(1, 4):
        names = ["/".join(one[-count:]) for one in parts]
        if len(set(names)) == len(names):
            break
    return [clean_text(name) for name in names]


def _widen(panel: NDArray[np.uint8], width: int) -> NDArray[np.uint8]:
    height = round(panel.shape[0] * width / panel.shape[1])
    return np.asarray(cv2.resize(panel, (width, height), interpolation=cv2.INTER_CUBIC), dtype=np.uint8)


def shrink(pixels: NDArray[np.uint8], scale: float, nearest: bool = False) -> NDArray[np.uint8]:
    """Return a smaller (H, W, 3) image, or by the ``nearest`` pixels (H, W) labels."""
    if scale == 1:
        return pixels
    interpolation = cv2.INTER_NEAREST if nearest else cv2.INTER_AREA
    size = max(1, round(pixels.shape[1] * scale)), max(1, round(pixels.shape[0] * scale))
    return np.asarray(cv2.resize(pixels, size, interpolation=interpolation), dtype=np.uint8)


def _shrink_objects(objects: Objects, scale: float) -> Objects:
    """Return objects for a smaller image; a thin mask stays visible where it covers a quarter of a pixel."""
    masks: list[Crop | None] = []
    for index in range(len(objects.masks)):
        crop = objects.crop(index)
        if crop is not None:
            (h, w), left, top = crop.mask.shape, int(crop.x * scale), int(crop.y * scale)
            size = max(1, round((crop.x + w) * scale) - left), max(1, round((crop.y + h) * scale) - top)
            small = cv2.resize(crop.mask * np.uint8(255), size, interpolation=cv2.INTER_AREA) > 63
            crop = Crop(small.astype(np.uint8), left, top)
        masks.append(crop)
    return Objects(objects.boxes * scale, masks, objects.colors, objects.texts, objects.names)


def _join_panels(panels: Sequence[NDArray[np.uint8]], captions: Sequence[str]) -> NDArray[np.uint8]:
    """Put panels of the same width side by side, each under its caption."""
    width = panels[0].shape[1]
    size = text_size((width, width))
    while size > 9 and any(text_mask(caption, size).shape[1] > width - size for caption in captions):
        size -= 1
    gap, bar = max(4, width * _GAP // 1000), line_height(size) + size // 2
    height = max(panel.shape[0] for panel in panels)
    joined = np.full((bar + height, len(panels) * (width + gap) - gap, 3), WHITE, dtype=np.uint8)
    for number, (panel, caption) in enumerate(zip(panels, captions, strict=True)):
        left = number * (width + gap)
        joined[bar : bar + panel.shape[0], left : left + width] = panel
        strip = joined[:bar, left : left + width]
        write_text(strip, caption, size // 3, size // 4, size, BLACK)
    return joined


# ---------------------------------------------------------------- contact sheet


class _Sheet:
    """Collects small drawings and writes them as the pages of a contact sheet; does nothing without a file."""

    def __init__(self, config: DrawConfig, artist: _Artist) -> None:
        self.path = None if config.sheet is None else Path(config.sheet)
        self.by_class = config.color_by == "class"
        self.artist = artist
        self.side = _CELL if artist.truth is None else _CELL * 2
        self.files: list[Path] = []
        self._cells: list[tuple[NDArray[np.uint8], str, str]] = []
        self._names: dict[int, str] = {}

    def add(self, image: int, pixels: NDArray[np.uint8], note: str) -> None:
        """Add an image with its file name and a note."""
        if self.path is None:
            return
        if len(self._cells) == _PER_PAGE:
            self._write()
        drawn = self.artist.draw(image, pixels, _CELL - 2 * _GAP)
        self._names |= self.artist.colors_in(image)
        name = clean_text(PurePath(self.artist.data.paths[image]).name) or "image"
        self._cells.append((drawn, name, note))

    def finish(self) -> None:
        """Write the last page."""
        if self.path is not None and self._cells:
            self._write()

    def _write(self) -> None:
        assert self.path is not None
        columns = min(_COLUMNS * _CELL // self.side, max(1, math.ceil(len(self._cells) ** 0.5)))
        cells = []
        for start in range(0, len(self._cells), columns):
            row = self._cells[start : start + columns]
            height = max(drawn.shape[0] for drawn, _, _ in row)  # so that the captions of a row are in line
            cells += [_add_caption(*cell, height, self.side) for cell in row]
        sheet = contact_sheet(cells, columns, max(self.side, max(map(len, cells))))
        if self._names and self.by_class:
            entries = [(f"{k} {name}", pick_color(k)) for k, name in sorted(self._names.items())]
            sheet = np.concatenate([sheet, draw_legend(sheet.shape[1], entries, 15)])
        number = len(self.files) + 1
        name = self.path.name if number == 1 else f"{self.path.stem}-{number}{self.path.suffix}"
        save_image(sheet, self.path.with_name(name))
        self.files.append(self.path.with_name(name))
        self._cells, self._names = [], {}


def _add_caption(
    drawn: NDArray[np.uint8], name: str, note: str, height: int, width: int
) -> NDArray[np.uint8]:
    """Center a drawing in a cell, above a name on its left and a note on its right."""

    def length(text: str) -> int:
        return text_mask(text, _CAPTION).shape[1]

    h, w = drawn.shape[:2]
    cell = np.full((height + line_height(_CAPTION) + 2 * _GAP, width, 3), WHITE, dtype=np.uint8)
    left, top, below = (width - w) // 2, _GAP + height - h, _GAP + height
    cell[top : top + h, left : left + w] = drawn
    room = width - 2 * _GAP - (length(note) + _CAPTION if note else 0)
    shown = next(
        (s for n in range(len(name), 8, -1) if length(s := shorten(name, n)) <= room), shorten(name, 8)
    )
    start = min(left, max(room - length(shown), 0) + _GAP)
    write_text(cell, shown, start, below, _CAPTION, BLACK)
    if note:
        end = max(left + w, start + length(shown) + _CAPTION)
        write_text(cell, note, min(end, width - _GAP - length(note)), below, _CAPTION, BLACK)
    return cell
