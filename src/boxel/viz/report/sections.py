"""The parts of the report on a labeled set as HTML; one that has nothing to say is empty."""

from __future__ import annotations

import json
from base64 import b64encode
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from boxel.data.annotations import Annotations
from boxel.viz.report.figures import Group, by_category, by_size, by_source
from boxel.viz.report.histogram import histogram
from boxel.viz.report.markup import MOST, bar, listing, pair, plural, share, table, text, tiles
from boxel.viz.report.pictures import draw_masks

_FAIR, _GOOD = 0.5, 0.75  # of quality, from which a mask is no longer wrong, and from which it is good
_THRESHOLDS = (_FAIR, _GOOD, 0.9)
_NAMED = 8  # names in a row, before the rest is counted


def overview(data: Annotations, quality: NDArray[np.float64], bad: int) -> str:
    """What was labeled, in figures, and who drew the masks.

    Args:
        data: the set.
        quality: (N,) in [0, 1], NaN where none is known.
        bad: how many images could not be labeled.
    """
    masked = data.has_segmentation
    figures = {
        "images": len(data),
        "boxes": len(masked),
        "masks": int(masked.sum()),
        "boxes without a mask": int((~masked).sum()),
        "masks not trusted": int((masked & ~data.trusted).sum()),
    }
    if bad:
        figures["images not labeled"] = bad
    shown = {name: f"{figure:,}" for name, figure in figures.items()}
    if np.isfinite(quality).any():
        shown["mean quality"] = f"{np.nanmean(quality):.2f}"
    makers = by_source(data)
    names = [f"{text(maker.name)} ({maker.masks:,})" for maker in makers[:_NAMED]]
    return f"<p>Masks by {_some(names, len(makers)) or 'nobody: there is none'}.</p>\n{tiles(shown)}"


def of_quality(data: Annotations, quality: NDArray[np.float64]) -> str:
    """The histogram of the quality, and how many masks reach which.

    Args:
        data: the set.
        quality: (N,) in [0, 1], NaN where none is known.
    """
    known = quality[np.isfinite(quality)]
    if not len(known):
        return "<p>No mask has an estimate of its quality, so there is no histogram and no ranking.</p>"
    masks = int(data.has_segmentation.sum())
    reached = {threshold: int((known >= threshold).sum()) for threshold in _THRESHOLDS}
    rows = [
        (f"at least {least:g}", f"{count:,}", share(count, len(known))) for least, count in reached.items()
    ]
    return (
        "<p>Quality is an estimate of a mask's IoU with the true mask, which nobody has drawn. "
        f"{len(known):,} of {plural(masks, 'mask has', 'masks have')} one.</p>\n"
        + pair(histogram(known), table(("quality", "masks", "share"), rows, numeric=True))
    )


def of_groups(data: Annotations) -> str:
    """Tables by category, by size of box and, where there are several, by maker of masks."""
    if not len(data.labels):
        return ""
    categories, makers = by_category(data), by_source(data)
    left = f"<p>{plural(len(categories), 'category', 'categories')}, the worst first.</p>"
    left += _groups("category", categories)
    right = "<p>A small box is under 32 x 32 pixels, a large one 96 x 96 or more.</p>"
    right += _groups("size of box", by_size(data))
    if len(makers) > 1:
        right += _groups("masks by", makers)
    return pair(left, right)


def of_masks(data: Annotations, quality: NDArray[np.float64], count: int) -> dict[str, str]:
    """The worst and the best masks over their photos, by title; some masks where no quality is known.

    Args:
        data: the set.
        quality: (N,) in [0, 1], NaN where none is known.
        count: how many of either are shown.
    """
    chosen = _chosen(data, quality, count)
    pictures = draw_masks(data, np.concatenate([*chosen.values()]).tolist())
    parts = {}
    for title, instances in chosen.items():
        cards = "\n".join(_card(data, i, quality[i], pictures[i]) for i in instances.tolist())
        parts[title] = f'<div class="cards">\n{cards}\n</div>' if cards else ""
    return parts


def of_faults(data: Annotations, bad: Sequence[str]) -> str:
    """What could not be labeled, could not be read, or got no mask.

    Args:
        data: the set.
        bad: a sentence for each image that could not be labeled.
    """
    messages = [fault.message for fault in data.issues]
    lacking = int((~data.has_segmentation).sum())
    parts = [
        ("Images that could not be labeled", len(bad), listing(bad)),
        ("Boxes without a mask", lacking, _boxes_without_a_mask(data)),
        ("Entries that could not be read", len(messages), listing(messages)),
    ]
    told = [f"<h3>{title}: {number:,}</h3>\n{content}" for title, number, content in parts if number]
    return "\n".join(told) or "<p>None: each image was labeled, and each box has a mask.</p>"


def of_settings(settings: Mapping[str, Any]) -> str:
    """How it was labeled."""
    plain = {name: value if isinstance(value, str) else _json(value) for name, value in settings.items()}
    return table(("setting", "value"), [(text(name), text(value)) for name, value in plain.items()])


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, default=str)


def _some(names: Sequence[str], count: int) -> str:
    """Names, the first of so many."""
    return ", ".join(names) + (f" and {count - len(names):,} more" if count > len(names) else "")


def _groups(title: str, groups: Sequence[Group]) -> str:
    rows = [
        (
            text(group.name),
            f"{group.boxes:,}",
            share(group.boxes - group.masks, group.boxes),
            share(group.dropped, group.masks),
            bar(group.quality),
        )
        for group in groups[:MOST]
    ]
    head = (title, "boxes", "no mask", "not trusted", "mean quality")
    return table(head, rows, numeric=True, total=len(groups))


def _chosen(data: Annotations, quality: NDArray[np.float64], count: int) -> dict[str, NDArray[np.int64]]:
    """Which masks are shown under which title; none is shown twice."""
    masks = np.flatnonzero(data.has_segmentation & data.has_box)
    rated = masks[np.isfinite(quality[masks])]
    if not len(rated):
        evenly = np.linspace(0, len(masks) - 1, min(count, len(masks))).astype(int)
        return {"Some masks": masks[evenly]}
    ranking = rated[np.argsort(quality[rated], kind="stable")]
    best = ranking[::-1][: min(count, len(rated) // 2)]
    return {"Worst masks": ranking[: min(count, len(rated) - len(best))], "Best masks": best}


def _card(data: Annotations, instance: int, quality: float, picture: bytes | str) -> str:
    """A mask over its photo, with all that is needed to find it."""
    category = text(data.categories[data.labels[instance]].name)
    if isinstance(picture, bytes):
        shown = f'<img alt="mask of {category}" src="data:image/webp;base64,{b64encode(picture).decode()}">'
    else:
        shown = f'<p class="lost">{text(picture)}</p>'
    grade = "poor" if quality < _FAIR else "fair" if quality < _GOOD else "good"
    value = "" if np.isnan(quality) else f'<b class="{grade}">{quality:.2f}</b>'
    trust = "" if data.trusted[instance] else "<span>not trusted</span>"
    return (
        f"<figure>{shown}<figcaption><strong><em>{category}</em>{value}</strong>"
        f"<span>{text(data.paths[data.image_index[instance]])}</span>"
        f"<span>annotation {text(data.ids[instance])}</span>{trust}</figcaption></figure>"
    )


def _boxes_without_a_mask(data: Annotations) -> str:
    """A table of boxes, an image a row, the one with the most first."""
    lacking = ~data.has_segmentation
    images, counts = np.unique(data.image_index[lacking], return_counts=True)
    order = np.argsort(-counts, kind="stable")[:MOST]
    rows = []
    for image, count in zip(images[order].tolist(), counts[order].tolist(), strict=True):
        own = data.instances_in(image)
        first = own[lacking[own]][:_NAMED].tolist()
        names = [f"{text(data.ids[i])} ({text(data.categories[data.labels[i]].name)})" for i in first]
        of_all = f"{count:,}&nbsp;of&nbsp;{len(own):,}"
        rows.append((text(data.paths[image]), of_all, _some(names, count)))
    return table(("image", "boxes", "annotations"), rows, total=len(images))
