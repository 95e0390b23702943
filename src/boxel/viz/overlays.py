"""Pictures for people: predictions over their image, sheets of images, curves of a training run."""

from __future__ import annotations

import csv
import math
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import supervision as sv
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import ArrayLike, NDArray
from PIL import Image, ImageOps
from skimage.segmentation import find_boundaries

from boxel.data.formats.voc_masks import palette
from boxel.masks.rle import Rle, decode
from boxel.utils.errors import BoxelError

_PALETTE = sv.ColorPalette.DEFAULT
_OPACITY = 0.45
_CLASS_COLORS = np.array(palette()).reshape(-1, 3)[1:]  # VOC's, without its black for the background


def overlay(
    image: NDArray[np.uint8],
    boxes: ArrayLike,
    masks: Sequence[Rle | None] | NDArray[np.bool_] | None,
    labels: ArrayLike | None,
    names: Sequence[str],
    scores: ArrayLike | None = None,
) -> NDArray[np.uint8]:
    """Instances drawn over their image, each in a color of its own.

    Lines and text grow with the image. A mask tints its pixels and is rimmed inside its edge; masks are
    decoded one at a time.

    Args:
        image: (H, W, 3) uint8 RGB; it stays as it is.
        boxes: (N, 4) xyxy pixels.
        masks: N run-length codes of size (H, W), None for an instance that has only a box; or (N, H, W)
            bool; or None if no instance has a mask.
        labels: (N,) int, indices into ``names``; None to leave names out.
        names: of the classes.
        scores: (N,) in [0, 1], NaN to leave one out; None to leave out all.

    Returns:
        (H, W, 3) uint8 RGB.
    """
    boxes = np.asarray(boxes, dtype=np.float64).reshape(-1, 4)
    if not len(boxes):
        return image.copy()
    # supervision and OpenCV paint in this order of channels; OpenCV's own types don't say (H, W, 3) uint8.
    scene: Any = cv2.cvtColor(image, cv2.COLOR_RGB2BGR)
    shorter = min(scene.shape[:2])
    thickness = max(1, round(shorter / 300))
    for i, mask in enumerate(masks if masks is not None else ()):
        if mask is not None:
            pixels = decode(mask) if isinstance(mask, dict) else mask.astype(np.uint8)
            _tint(scene, pixels, _PALETTE.by_idx(i).as_bgr(), thickness)
    detections = sv.Detections(xyxy=boxes)
    by_index = sv.ColorLookup.INDEX
    scene = sv.BoxAnnotator(_PALETTE, thickness=thickness, color_lookup=by_index).annotate(scene, detections)
    texts = _texts(len(boxes), labels, names, scores)
    if texts:
        scale = max(0.3, shorter / 800)
        annotator = sv.LabelAnnotator(
            _PALETTE,
            text_color=_TEXT_COLORS,
            text_scale=scale,
            text_thickness=max(1, round(1.5 * scale)),
            text_padding=max(1, round(6 * scale)),
            color_lookup=by_index,
            smart_position=True,
        )
        scene = annotator.annotate(scene, detections, labels=texts)
    return np.ascontiguousarray(scene[..., ::-1])


def _readable_on(color: sv.Color) -> sv.Color:
    luma = 0.299 * color.r + 0.587 * color.g + 0.114 * color.b  # ITU-R BT.601
    return sv.Color.BLACK if luma > 140 else sv.Color.WHITE


_TEXT_COLORS = sv.ColorPalette([_readable_on(color) for color in _PALETTE.colors])


def _tint(
    scene: NDArray[np.uint8], mask: NDArray[np.uint8], color: tuple[int, int, int], thickness: int
) -> None:
    """Blend one color into the pixels of a mask, in place, and paint the mask's rim in it."""
    x, y, w, h = cv2.boundingRect(mask)
    inside = mask[y : y + h, x : x + w]
    if not inside.size:
        return
    region = scene[y : y + h, x : x + w]
    kernel = np.ones((2 * thickness + 1, 2 * thickness + 1), dtype=np.uint8)
    core = cv2.erode(np.ascontiguousarray(inside), kernel, borderType=cv2.BORDER_CONSTANT, borderValue=0)
    tinted = region * (1 - _OPACITY) + np.array(color) * _OPACITY
    region[inside > 0] = np.round(tinted[inside > 0])
    region[inside > core] = color


def _texts(count: int, labels: ArrayLike | None, names: Sequence[str], scores: ArrayLike | None) -> list[str]:
    """What stands at each box; nothing if there is neither a label nor a score."""
    if labels is None and scores is None:
        return []
    words = [""] * count if labels is None else [names[label] for label in np.asarray(labels).tolist()]
    figures = (
        [""] * count if scores is None else ["" if np.isnan(s) else f"{s:.2f}" for s in np.asarray(scores)]
    )
    return [f"{word} {figure}".strip() for word, figure in zip(words, figures, strict=True)]


def overlay_labels(
    image: NDArray[np.uint8], labels: NDArray[np.integer], names: Sequence[str]
) -> NDArray[np.uint8]:
    """The classes of pixels drawn over their image, outlined in white, above a legend of those that are there.

    Args:
        image: (H, W, 3) uint8 RGB; it stays as it is.
        labels: (H, W), indices into ``names``; pixels of others, and of a class `background`, keep their color.
        names: of the classes.

    Returns:
        (H + legend, W, 3) uint8 RGB.
    """
    shown = [k for k in np.unique(labels).tolist() if k < len(names) and names[k] != "background"]
    scene = image.astype(np.float64)
    for k in shown:
        scene[labels == k] = scene[labels == k] * (1 - _OPACITY) + _CLASS_COLORS[k] * _OPACITY
    # A class's color may be that of the ground: dark green on grass.
    scene[find_boundaries(labels, mode="inner") & np.isin(labels, shown)] = 255
    return np.concatenate([np.round(scene).astype(np.uint8), _legend(image.shape[1], shown, names)])


def _legend(width: int, shown: Sequence[int], names: Sequence[str]) -> NDArray[np.uint8]:
    """(h, width, 3) names in the colors of their classes, as many a row as there is room for."""
    scale, line = 0.4, 16
    places, x, y = [], 4, 0
    for k in shown:
        length = cv2.getTextSize(names[k], cv2.FONT_HERSHEY_SIMPLEX, scale, 1)[0][0] + 20
        x, y = (4, y + line) if x > 4 and x + length > width else (x, y)
        places.append((k, x, y))
        x += length
    strip = np.full((y + line if places else 0, width, 3), 255, dtype=np.uint8)
    for k, x, y in places:
        strip[y + 4 : y + 12, x : x + 10] = _CLASS_COLORS[k]
        cv2.putText(
            strip, names[k], (x + 14, y + 12), cv2.FONT_HERSHEY_SIMPLEX, scale, (0, 0, 0), 1, cv2.LINE_AA
        )
    return strip


def contact_sheet(images: Sequence[NDArray[np.uint8]], columns: int, cell: int) -> NDArray[np.uint8]:
    """Images side by side, row by row, each fitted into a square; on white, each row as high as its highest image.

    Args:
        images: (H, W, 3) uint8, of any sizes.
        columns: images in a row.
        cell: side of the square, in pixels.

    Returns:
        (height, columns * cell, 3) uint8 with as many rows as it takes; one white row of `cell` pixels for no images.
    """
    fitted = [ImageOps.contain(Image.fromarray(i), (cell, cell), Image.Resampling.BILINEAR) for i in images]
    rows = [fitted[at : at + columns] for at in range(0, len(fitted), columns)]
    heights = [max(image.height for image in row) for row in rows]
    sheet = Image.new("RGB", (columns * cell, sum(heights) or cell), "white")
    top = 0
    for row, height in zip(rows, heights, strict=True):
        for column, image in enumerate(row):
            place = column * cell + (cell - image.width) // 2, top + (height - image.height) // 2
            sheet.paste(image, place)
        top += height
    return np.asarray(sheet)


def save_image(image: NDArray[np.uint8], path: str | os.PathLike[str]) -> None:
    """Write an image; its folder is made if need be.

    Args:
        image: (H, W, 3) or (H, W) uint8.
        path: the file; its suffix decides the format.

    Raises:
        BoxelError: the file can't be written or its suffix names no image format.
    """
    with _writing(Path(path)):
        Image.fromarray(image).save(path)


def plot_curves(csv_path: str | os.PathLike[str], out_png: str | os.PathLike[str]) -> None:
    """Losses, validation metrics and learning rates of a run against its steps, a panel each.

    Args:
        csv_path: the `metrics.csv` of Lightning's `CSVLogger`. Most of its cells are empty, since each row
            holds what was logged at one moment.
        out_png: the picture to write.

    Raises:
        BoxelError: there is no such file.
    """
    curves = _read_curves(Path(csv_path))
    panels: dict[str, dict[str, _Curve]] = {"losses": {}, "validation": {}, "learning rate": {}}
    for name, curve in curves.items():
        panel = "losses" if "loss" in name else "learning rate" if name.startswith("lr") else "validation"
        if not name.startswith("weight/"):  # of the losses: settings, no measure of anything
            panels[panel][name] = curve
    if not panels["learning rate"]:
        del panels["learning rate"]
    figure = Figure(figsize=(9, 3.2 * len(panels)), layout="constrained")
    for axes, (title, lines) in zip(figure.subplots(len(panels), sharex=True), panels.items(), strict=True):
        _plot_panel(axes, title, lines)
    axes.set(xlabel="step")
    _save_figure(figure, Path(out_png))


_Curve = tuple[list[float], list[float]]
"""Steps and values."""


def _plot_panel(axes: Axes, title: str, curves: Mapping[str, _Curve]) -> None:
    for name, (steps, values) in curves.items():
        # A mark for each value, while there are few enough to be told apart.
        axes.plot(
            steps, values, label=name, linewidth=1.2, marker="o" if len(steps) < 40 else None, markersize=3
        )
    axes.set(title=title)
    axes.grid(alpha=0.3)
    if curves:
        axes.legend(fontsize="small", loc="center left", bbox_to_anchor=(1, 0.5))
    else:
        axes.text(0.5, 0.5, "nothing logged yet", ha="center", va="center", transform=axes.transAxes)


def _read_curves(path: Path) -> dict[str, _Curve]:
    """Each column but the counters as a curve; cells that are empty or no finite number are skipped."""
    curves: dict[str, _Curve] = {}
    try:
        with open(path, newline="") as file:
            for number, row in enumerate(csv.DictReader(file)):
                step = _number(row.get("step"))
                for name, cell in row.items():
                    value = None if name in (None, "step", "epoch") else _number(cell)
                    if value is not None:
                        steps, values = curves.setdefault(name, ([], []))
                        steps.append(number if step is None else step)
                        values.append(value)
    except OSError as error:
        raise BoxelError(f"{path}: can't be read ({error.strerror}); name a run's metrics.csv.") from error
    return curves


def _number(cell: Any) -> float | None:
    try:
        value = float(cell)
    except (TypeError, ValueError):
        return None
    return value if math.isfinite(value) else None


def plot_affinity(table: Mapping[str, ArrayLike], out_png: str | os.PathLike[str]) -> None:
    """How far color tells that two pixels have the same label (BoxInst, Figure 4).

    Args:
        table: T values each of ``tau``, a threshold of color similarity in [0, 1]; ``precision``, the share
            of positive edges (both pixels of the same label) among those of similarity tau or more; and
            ``recall``, the share of all positive edges that are among these.
        out_png: the picture to write.
    """
    figure = Figure(figsize=(5, 3.6), layout="constrained")
    axes = figure.subplots()
    tau = np.asarray(table["tau"])
    curves = [
        ("precision", "tab:blue", "positive share of the edges kept"),
        ("recall", "tab:red", "share of the positive edges kept"),
    ]
    for name, color, label in curves:
        axes.plot(tau, table[name], "o-", color=color, markersize=3, label=label)
    axes.set(
        xlabel="color similarity threshold \N{GREEK SMALL LETTER TAU}", ylabel="proportion", ylim=(0, 1.02)
    )
    axes.grid(alpha=0.3)
    axes.legend(fontsize="small", loc="best")
    _save_figure(figure, Path(out_png))


def plot_recall(curves: Mapping[str, ArrayLike], out_png: str | os.PathLike[str]) -> None:
    """Draw how well the best candidate segments fit, by their number.

    Args:
        curves: `count`, how many candidates are looked at, on the horizontal axis; all others are drawn over it.
        out_png: the PNG to write.

    Raises:
        BoxelError: the PNG can't be written.
    """
    figure = Figure(figsize=(6, 4), layout="constrained")
    axes = figure.subplots()
    for name, values in curves.items():
        if name != "count":
            axes.plot(np.asarray(curves["count"]), np.asarray(values), marker=".", label=name)
    axes.set(xscale="log", ylim=(0, 1), xlabel="candidate segments of an image")
    axes.grid(alpha=0.3)
    axes.legend()
    _save_figure(figure, Path(out_png))


def plot_trimap(curves: Mapping[str, Mapping[str, ArrayLike]], out_png: str | os.PathLike[str]) -> None:
    """Mean IoU against the width of the band around true boundaries (BoxSup, Figure 4).

    Of each segmenter the interior is drawn solid and the boundary dashed, both in a color of its own.

    Args:
        curves: by the name of a segmenter, T values each of `width`, in pixels; `boundary`, the mean IoU inside the
            band; and `interior`, that outside it. Undefined ones, NaN or None, leave a gap.
        out_png: the PNG to write.

    Raises:
        BoxelError: the PNG can't be written.
    """
    figure = Figure(figsize=(6, 4), layout="constrained")
    axes = figure.subplots()
    for number, (name, values) in enumerate(curves.items()):
        for part, style in (("interior", ".-"), ("boundary", ".--")):
            ious = np.asarray(values[part], dtype=np.float64)  # None becomes NaN
            axes.plot(np.asarray(values["width"]), ious, style, color=f"C{number}", label=f"{name}, {part}")
    axes.set(xlabel="width of the band (pixels)", ylabel="mean IoU")
    axes.grid(alpha=0.3)
    axes.legend()
    _save_figure(figure, Path(out_png))


def _save_figure(figure: Figure, path: Path) -> None:
    with _writing(path):
        figure.savefig(path, dpi=120)


@contextmanager
def _writing(path: Path) -> Iterator[None]:
    """Make the folder of a picture; what goes wrong inside comes out as a sentence on the file."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield
    except ValueError as error:
        raise BoxelError(
            f"{path}: {path.suffix!r} names no image format; end the name on .png or .jpg."
        ) from error
    except OSError as error:
        raise BoxelError(
            f"{path}: can't be written ({error.strerror or error}); check the folder."
        ) from error
