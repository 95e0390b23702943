"""The report on a labeled dataset: one HTML file with its quality, its issues, and its worst and best masks."""

from __future__ import annotations

import math
import os
from base64 import b64encode
from collections.abc import Mapping, Sequence
from datetime import date
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined
from numpy.typing import NDArray

from boxel import __version__
from boxel.data.annotations import Annotations
from boxel.data.suspects import find_suspects
from boxel.utils.printable import printable
from boxel.viz.output import writing_file
from boxel.viz.report.groups import group_by_category, group_by_size, group_by_source, known_quality
from boxel.viz.report.pictures import draw_masks

_FAIR, _GOOD = 0.5, 0.75  # quality from which a mask is not wrong, and from which it is good
_THRESHOLDS = (_FAIR, _GOOD, 0.9)
_MAX_ROWS = 100  # rows of a table or list; more are counted
_MAX_NAMED = 8  # annotations named in a row; more are counted
_MAX_CHARACTERS = 300  # of a text
_DASH = "\N{EN DASH}"  # stands for an undefined number


def write_report(
    data: Annotations,
    path: str | os.PathLike[str],
    *,
    failures: Sequence[str] = (),
    changed: Sequence[str] = (),
    settings: Mapping[str, object] | None = None,
    summary: str = "",
    command: str = "",
    count: int = 24,
) -> None:
    """Write a page on a labeled dataset: how many masks it has, how good they are, which to look at, what went wrong.

    The file is self-contained: no scripts, fonts or pictures from elsewhere. Only the images shown are read, and one
    that cannot be read costs only its own picture. The page stays small however large the dataset is.

    Args:
        data: A dataset with masks; crowds are ignored.
        path: The file to write.
        failures: A message per image that could not be labeled.
        changed: The images that were labeled again since they had changed.
        settings: The settings of the labeling, by name.
        summary: What happened to the boxes, in one line.
        command: The command line that made the masks.
        count: Number of worst masks shown, and of best masks.

    Raises:
        BoxelError: The file cannot be written.

    Examples:
        >>> from boxel.data import example_scenes
        >>> scenes = example_scenes(2)
        >>> write_report(scenes, scenes.root / "report.html")
        >>> "Masks from boxes" in (scenes.root / "report.html").read_text()
        True
    """
    about = {"summary": summary, "command": command, "date": date.today(), "version": __version__}
    data = data.select_instances(~data.iscrowd)
    page = render("report.html.j2", _collect(data, failures, changed, settings or {}, count) | about)
    with writing_file(path) as file:
        file.write_text(printable(page), encoding="utf-8")  # names may hold control characters


def render(template: str, context: Mapping[str, Any]) -> str:
    """Render a template of this package with the style of all its pages."""
    environment = Environment(
        loader=PackageLoader("boxel.viz", "report"), autoescape=True, undefined=StrictUndefined
    )
    environment.filters |= {"thousands": "{:,}".format, "short": _shorten}
    environment.tests["number_known"] = math.isfinite
    environment.globals |= {"share": _format_share, "dash": _DASH, "limit": _MAX_ROWS}
    style = files("boxel.viz.report").joinpath("report.css").read_text(encoding="utf-8")
    return environment.get_template(template).render(style=style, **context)


def _shorten(value: object) -> str:
    text = str(value)
    return text if len(text) <= _MAX_CHARACTERS else f"{text[: _MAX_CHARACTERS - 1]}…"


def _format_setting(value: object) -> str:
    if isinstance(value, list | tuple):
        return ", ".join(map(_format_setting, value))
    words = {"None": "default", "True": "yes", "False": "no", "": "none"}
    return words.get(str(value), str(value))


def _format_share(part: int, whole: int) -> str:
    """Format a share in percent, or a dash if there is nothing to take it of."""
    if not whole:
        return _DASH
    percent = 100 * part / whole
    number = "<0.1" if 0 < percent < 0.05 else f"{percent:.1f}".removesuffix(".0")
    return f"{number}\N{NO-BREAK SPACE}%"


def _collect(
    data: Annotations,
    failures: Sequence[str],
    changed: Sequence[str],
    settings: Mapping[str, Any],
    count: int,
) -> dict[str, Any]:
    """Collect everything that the template shows."""
    quality, masked = known_quality(data), data.has_segmentation
    rated = quality[np.isfinite(quality)]
    pictures = _make_cards(data, quality, count)
    categories = group_by_category(data)
    filled = {
        "Groups": categories,
        **pictures,
        "Issues": True,
        "Labeled again": changed,
        "Settings": settings,
    }
    return {
        "name": Path(data.file).name or data.root.name,
        "makers": group_by_source(data),
        "tiles": _make_tiles(data, rated, len(failures)),
        "sections": ["Quality", *(title for title, content in filled.items() if content)],
        "masks": int(masked.sum()),
        "rated": len(rated),
        "histogram": _make_histogram(rated) if len(rated) else None,
        "reached": {f"{threshold:g}": int((rated >= threshold).sum()) for threshold in _THRESHOLDS},
        "categories": categories,
        "sizes": group_by_size(data),
        "pictures": pictures,
        "failures": failures,
        "lacking": _find_boxes_without_masks(data, ~masked) if not masked.all() else None,
        "suspects": _list_suspects(data),
        "issues": [issue.message for issue in data.issues],
        "changed": changed,
        "settings": {name: _format_setting(value) for name, value in settings.items()},
    }


def _make_tiles(data: Annotations, rated: NDArray[np.float64], failures: int) -> dict[str, str]:
    masked = data.has_segmentation
    counts = {
        "images": len(data),
        "boxes": len(masked),
        "masks": int(masked.sum()),
        "boxes without a mask": int((~masked).sum()),
        "masks not trusted": int((masked & ~data.trusted).sum()),
    }
    if failures:
        counts["images not labeled"] = failures
    tiles = {name: f"{number:,}" for name, number in counts.items()}
    return tiles | ({"mean quality": f"{rated.mean():.2f}"} if len(rated) else {})


def _make_histogram(values: NDArray[np.float64]) -> dict[str, Any]:
    """Count the values in each tenth of [0, 1]."""
    # Tenths as they are written; np.linspace has 0.30000000000000004.
    counts = np.histogram(values, np.arange(11) / 10)[0].tolist()
    return {"counts": counts, "mean": float(values.mean()), "median": float(np.median(values))}


def _make_cards(
    data: Annotations, quality: NDArray[np.float64], count: int
) -> dict[str, list[dict[str, Any]]]:
    """Draw the worst and the best masks, by title; evenly spaced masks if no quality is known."""
    masks = np.flatnonzero(data.has_segmentation & data.has_box)
    rated = masks[np.isfinite(quality[masks])]
    if len(rated):
        ranking = rated[np.argsort(quality[rated], kind="stable")]
        best = ranking[::-1][: min(count, len(rated) // 2)]  # no mask is shown twice
        chosen = {"Worst masks": ranking[: min(count, len(rated) - len(best))], "Best masks": best}
    else:
        spaced = np.linspace(0, len(masks) - 1, min(count, len(masks))).astype(int)
        chosen = {"Some masks": masks[spaced]}
    suspects = {row: suspect for suspect, rows in find_suspects(data).items() for row in rows}
    if suspects:
        marked = np.array([*suspects])
        worst = marked[np.argsort(quality[marked], kind="stable")][:count]
        chosen = {"Boxes that look wrong": worst} | chosen
    drawn = draw_masks(data, np.unique(np.concatenate([*chosen.values()])).tolist())
    return {
        title: [_make_card(data, i, float(quality[i]), drawn[i], suspects.get(i)) for i in instances.tolist()]
        for title, instances in chosen.items()
    }


def _make_card(
    data: Annotations, instance: int, quality: float, drawn: bytes | str, suspect: str | None
) -> dict[str, Any]:
    """Describe a mask with all that is needed to find it."""
    return {
        "picture": b64encode(drawn).decode() if isinstance(drawn, bytes) else None,
        "error": drawn if isinstance(drawn, str) else None,
        "category": data.categories[data.labels[instance]].name,
        "quality": quality,
        "grade": "poor" if quality < _FAIR else "fair" if quality < _GOOD else "good",
        "file": data.paths[data.image_index[instance]],
        "id": data.ids[instance],
        "trusted": bool(data.trusted[instance]),
        "suspect": suspect,
    }


def _list_suspects(data: Annotations) -> list[str]:
    """Name the boxes that look wrong, in the order of the file."""
    found = sorted((row, suspect) for suspect, rows in find_suspects(data).items() for row in rows)
    return [f"{data.paths[data.image_index[i]]}: annotation {data.ids[i]}: {suspect}" for i, suspect in found]


def _find_boxes_without_masks(data: Annotations, lacking: NDArray[np.bool_]) -> dict[str, Any]:
    """Count boxes without a mask per image, the image with the most first."""
    images, counts = np.unique(data.image_index[lacking], return_counts=True)
    order = np.argsort(-counts, kind="stable")[:_MAX_ROWS]
    rows = []
    for image, count in zip(images[order].tolist(), counts[order].tolist(), strict=True):
        own = data.instances_in(image)
        first = own[lacking[own]][:_MAX_NAMED].tolist()
        named = [(data.ids[i], data.categories[data.labels[i]].name) for i in first]
        rows.append({"file": data.paths[image], "count": count, "boxes": len(own), "named": named})
    return {"boxes": int(lacking.sum()), "images": len(images), "rows": rows}
