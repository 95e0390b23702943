"""The report on a labeled dataset: one HTML file with its quality, issues, worst and best masks, and all boxes."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from boxel.data.annotations import Annotations
from boxel.data.suspects import find_suspects
from boxel.viz.report.charts import make_histogram
from boxel.viz.report.groups import group_by_category, group_by_size, group_by_source, known_quality
from boxel.viz.report.pictures import draw_masks
from boxel.viz.report.render import MAX_ROWS, Section, format_setting, shorten, write_page

_FAIR, _GOOD = 0.5, 0.75  # quality from which a mask is not wrong, and from which it is good
_THRESHOLDS = (_FAIR, _GOOD, 0.9)
_MAX_NAMED = 8  # annotations named in a row; more are counted
_MAX_MAKERS = 8  # named at the top
_MAX_LISTED = 50_000  # boxes in the list of all
_MAX_THUMBS = 150  # pictures in this list, beside those of the worst and the best
_THUMB_SIDE = 240  # longer side of these, in pixels


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
    that cannot be read costs only its own picture. The list of all boxes, which a browser sorts and filters, ends after
    50,000, the worst first, and 150 of them have a picture of their own; so the page stays below 10 MB.

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
    data = data.select_instances(~data.iscrowd)
    quality, masked = known_quality(data), data.has_segmentation
    rated = quality[np.isfinite(quality)]
    suspects = {row: suspect for suspect, rows in find_suspects(data).items() for row in rows}
    chosen = _choose_cards(data, quality, suspects, count)
    categories, makers = group_by_category(data), group_by_source(data)
    context = {
        "masks": int(masked.sum()),
        "rated": len(rated),
        "histogram": make_histogram(rated) if len(rated) else None,
        "reached": {f"{threshold:g}": int((rated >= threshold).sum()) for threshold in _THRESHOLDS},
        "categories": categories,
        "sizes": group_by_size(data),
        "makers": makers,
        **_draw(data, quality, suspects, chosen),
        "failures": failures,
        "lacking": _find_boxes_without_masks(data, ~masked) if not masked.all() else None,
        "suspects": [f"{_locate(data, i)}: {suspects[i]}" for i in sorted(suspects)],
        "entries": [issue.message for issue in data.issues],
        "changed": changed,
        "settings": {name: format_setting(value) for name, value in (settings or {}).items()},
    }
    name = Path(data.file).name or data.root.name
    lead = [_name_makers(makers), *[f"{summary}."] * bool(summary)]
    write_page(
        path,
        "Masks from boxes",
        name,
        _choose_sections(categories, chosen, len(masked) > 0, changed, settings),
        _make_tiles(data, rated, len(failures)),
        context,
        lead,
        command,
    )


def _choose_sections(
    categories: Sequence[Any],
    chosen: Mapping[str, NDArray[np.int64]],
    has_boxes: bool,
    changed: Sequence[str],
    settings: Mapping[str, object] | None,
) -> list[Section]:
    """Return the sections that have content."""
    sections = {
        ("Quality", "quality"): True,
        ("Groups", "groups"): categories,
        **{(title, "cards"): len(rows) > 0 for title, rows in chosen.items()},
        ("All boxes", "every"): has_boxes,
        ("Issues", "issues"): True,
        ("Labeled again", "labeled_again"): changed,
        ("Settings", "settings_table"): settings,
    }
    return [
        Section(heading, "labels.html.j2", macro) for (heading, macro), content in sections.items() if content
    ]


def _name_makers(makers: Sequence[Any]) -> str:
    if not makers:
        return "There are no masks."
    named = ", ".join(f"{maker.name} ({maker.masks:,})" for maker in makers[:_MAX_MAKERS])
    more = f" and {len(makers) - _MAX_MAKERS:,} more" if len(makers) > _MAX_MAKERS else ""
    return f"Masks by {named}{more}."


def _make_tiles(data: Annotations, rated: NDArray[np.float64], failures: int) -> dict[str, object]:
    masked = data.has_segmentation
    tiles: dict[str, object] = {
        "images": len(data),
        "boxes": len(masked),
        "masks": int(masked.sum()),
        "boxes without a mask": int((~masked).sum()),
        "masks not trusted": int((masked & ~data.trusted).sum()),
    }
    if failures:
        tiles["images not labeled"] = failures
    return tiles | ({"mean quality": f"{rated.mean():.2f}"} if len(rated) else {})


def _choose_cards(
    data: Annotations, quality: NDArray[np.float64], suspects: Mapping[int, str], count: int
) -> dict[str, NDArray[np.int64]]:
    """Choose the worst and the best masks, by title; evenly spaced masks if no quality is known."""
    masks = np.flatnonzero(data.has_segmentation & data.has_box)
    rated = masks[np.isfinite(quality[masks])]
    if len(rated):
        ranking = rated[np.argsort(quality[rated], kind="stable")]
        best = ranking[::-1][: min(count, len(rated) // 2)]  # no mask is shown twice
        chosen = {"Worst masks": ranking[: min(count, len(rated) - len(best))], "Best masks": best}
    else:
        spaced = np.linspace(0, len(masks) - 1, min(count, len(masks))).astype(int)
        chosen = {"Some masks": masks[spaced]}
    if suspects:
        marked = np.array([*suspects])
        chosen = {
            "Boxes that look wrong": marked[np.argsort(quality[marked], kind="stable")][:count]
        } | chosen
    return chosen


def _draw(
    data: Annotations,
    quality: NDArray[np.float64],
    suspects: Mapping[int, str],
    chosen: Mapping[str, NDArray[np.int64]],
) -> dict[str, Any]:
    """Return the cards by title and the list of all boxes; a picture of a card is that of the list too."""
    # An unknown quality comes last of the masks, and boxes without a mask first.
    order = np.lexsort((quality, data.has_segmentation))[:_MAX_LISTED]
    in_cards = np.unique(np.concatenate([*chosen.values()])).tolist()
    masked = order[(data.has_segmentation & data.has_box)[order]]
    others = masked[~np.isin(masked, in_cards)][:_MAX_THUMBS].tolist()
    drawn = draw_masks(data, in_cards) | draw_masks(data, others, _THUMB_SIDE)
    cards = {
        title: [_make_card(data, i, float(quality[i]), drawn[i], suspects.get(i)) for i in rows.tolist()]
        for title, rows in chosen.items()
    }
    first = {card["instance"]: card for row in reversed([*cards.values()]) for card in row}
    for instance, card in first.items():
        card["anchor"] = f"card{instance}"  # an instance may have two cards
    thumbs = {i: f"#card{i}" for i in in_cards if isinstance(drawn[i], dict)}
    thumbs |= {i: picture["mask"] for i in others if isinstance(picture := drawn[i], dict)}
    place = {int(i): k for k, i in enumerate(order)}
    table = _list_boxes(data, order, quality, suspects)
    table["thumbs"] = {place[i]: picture for i, picture in thumbs.items() if i in place}
    note = f"{len(order):,} boxes, the worst first"
    if len(order) < len(quality):
        note = f"The {len(order):,} worst of {len(quality):,} boxes, the worst first; the file has all"
    some = f"; {len(table['thumbs']):,} of them have a picture" if len(thumbs) < len(order) else ""
    return {"pictures": cards, "list": table, "every_note": f"{note}{some}."}


def _list_boxes(
    data: Annotations, order: NDArray[np.int64], quality: NDArray[np.float64], suspects: Mapping[int, str]
) -> dict[str, Any]:
    """Return the rows that the script of the page shows, each by few characters: names are in lists of their own."""
    files, image = np.unique(data.image_index[order], return_inverse=True)
    labels, label = np.unique(data.labels[order], return_inverse=True)
    sources = {source: k for k, source in enumerate(dict.fromkeys(s or "" for s in data.source[order]))}
    sides = np.where(data.has_box[:, None], data.boxes[:, 2:] - data.boxes[:, :2], 0).round(1)
    rows, masked = [], data.has_segmentation
    for k, i in enumerate(order.tolist()):
        state = ["no mask"] * (not masked[i]) + ["not trusted"] * (not data.trusted[i])
        state += [f"box: {suspects[i]}"] if i in suspects else []
        known = round(float(quality[i]), 4) if np.isfinite(quality[i]) else None
        box = [int(side) if side == int(side) else side for side in sides[i].tolist()]
        source = sources[data.source[i] or ""]
        rows.append([int(image[k]), data.ids[i], int(label[k]), known, box, ", ".join(state), source])
    heads = ["picture", "file", "id", "class", "quality", "box", "note"]
    heads += ["masks by"] * (len(sources) > 1)
    return {
        "heads": [{"column": column, "name": name} for column, name in enumerate(heads)],
        "rows": rows,
        "files": [shorten(data.paths[index]) for index in files.tolist()],
        "classes": [shorten(data.categories[label].name) for label in labels.tolist()],
        "sources": [shorten(source) for source in sources],
    }


def _make_card(
    data: Annotations, instance: int, quality: float, drawn: dict[str, str] | str, suspect: str | None
) -> dict[str, Any]:
    """Describe a mask with all that is needed to find it."""
    lines = [
        data.paths[data.image_index[instance]],
        f"annotation {data.ids[instance]}",
        f"box: {suspect}" if suspect else "",
        "" if data.trusted[instance] else "not trusted",
    ]
    category = data.categories[data.labels[instance]].name
    return {
        "picture": drawn if isinstance(drawn, str) else {f"mask of {category}": drawn["mask"]},
        "instance": instance,
        "anchor": "",
        "category": category,
        "quality": quality,
        "grade": "poor" if quality < _FAIR else "fair" if quality < _GOOD else "good",
        "lines": lines,
    }


def _locate(data: Annotations, instance: int) -> str:
    return f"{data.paths[data.image_index[instance]]}: annotation {data.ids[instance]}"


def _find_boxes_without_masks(data: Annotations, lacking: NDArray[np.bool_]) -> dict[str, Any]:
    """Count boxes without a mask per image, the image with the most first."""
    images, counts = np.unique(data.image_index[lacking], return_counts=True)
    order = np.argsort(-counts, kind="stable")[:MAX_ROWS]
    rows = []
    for image, count in zip(images[order].tolist(), counts[order].tolist(), strict=True):
        own = data.instances_in(image)
        first = own[lacking[own]][:_MAX_NAMED].tolist()
        named = [(data.ids[i], data.categories[data.labels[i]].name) for i in first]
        rows.append({"file": data.paths[image], "count": count, "boxes": len(own), "named": named})
    return {"boxes": int(lacking.sum()), "images": len(images), "rows": rows}
