"""The report of a check: one HTML file with what a dataset holds and what is wrong with it."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from boxel.data.annotations import Annotations
from boxel.data.checks.statistics import Statistics
from boxel.data.images import read_image
from boxel.data.issues import Issue, describe_repairs, group_by_kind
from boxel.utils.errors import BoxelError
from boxel.viz.drawing import draw_thumbnail
from boxel.viz.report.pictures import draw_masks
from boxel.viz.report.render import Section, embed, write_page

_EXAMPLES = 20  # messages per kind of issue, and groups of images; more are counted
_MAX_PICTURES = 4  # per kind of issue or of images
_MAX_NAMED = 10  # images of a group
_SIDE = 320  # longer side of a picture, in pixels


def write_check_report(
    statistics: Statistics,
    issues: Sequence[Issue],
    path: str | os.PathLike[str],
    command: str = "",
    data: Annotations | None = None,
) -> None:
    """Write a page on a dataset: what it holds, and its issues with the first examples of each kind.

    The file is self-contained: no scripts, fonts or pictures from elsewhere.

    Args:
        statistics: What `collect_statistics` counted.
        issues: What `check` found.
        path: The file to write.
        command: The command line that checked the dataset.
        data: The dataset as it was read, to draw the first examples. None: no pictures.

    Raises:
        BoxelError: The file cannot be written.

    Examples:
        >>> import tempfile
        >>> from boxel.data import check, collect_statistics, example_scenes
        >>> data = example_scenes()
        >>> file = Path(tempfile.mkdtemp()) / "check.html"
        >>> write_check_report(collect_statistics(data), check(data), file)
        >>> "No issues found" in file.read_text()
        True
    """
    kinds = [
        {
            "name": kind,
            "members": members,
            "repairs": describe_repairs(members),
            "cards": _draw(data, members),
        }
        for kind, members in sorted(group_by_kind(issues).items(), key=lambda item: -len(item[1]))
    ]
    similar = {
        "Images in several splits, or like one of another split": statistics.leaks,
        "Images of the same content": statistics.identical_images,
        "Images that look the same": statistics.similar_images,
    }
    groups = [
        {
            "name": title,
            "members": [_name_group(group) for group in found],
            "cards": [_draw_images(data, group[:2]) for group in found[:_MAX_PICTURES]] if data else [],
        }
        for title, found in similar.items()
        if found
    ]
    groups += [
        {
            "name": title[:1].upper() + title[1:],
            "members": paths,
            "cards": [_draw_images(data, [path]) for path in paths[:_MAX_PICTURES]] if data else [],
        }
        for title, paths in statistics.oddities.items()
    ]
    sections = [Section(title, "check.html.j2", title.lower()) for title in ("Contents", "Issues", "Classes")]
    sections += [Section("Images to look at", "check.html.j2", "images")] * bool(groups)
    tiles: dict[str, object] = {
        "images": statistics.images,
        "instances": statistics.instances,
        "classes": len(statistics.classes),
        "trusted masks": statistics.masks["trusted"],
        "issues": len(issues),
    }
    context = {
        "s": statistics,
        "kinds": kinds,
        "groups": groups,
        "largest_class": max(statistics.classes.values(), default=0),
        "examples": _EXAMPLES,
    }
    name = Path(statistics.file).name or statistics.file
    write_page(path, "Dataset", name, sections, tiles, context, command=command)


def _name_group(group: Sequence[str]) -> str:
    more = f" and {len(group) - _MAX_NAMED:,} more" if len(group) > _MAX_NAMED else ""
    return ", ".join(group[:_MAX_NAMED]) + more


def _draw(data: Annotations | None, issues: Iterable[Issue]) -> list[dict[str, Any]]:
    """Draw the first issues that concern an annotation or an image: its box and mask in the image, or all of it."""
    cards: list[dict[str, Any]] = []
    if data is None:
        return cards
    image_of = {id: image for image, id in reversed([*enumerate(data.image_ids)])}
    for issue in issues:
        image = image_of.get(issue.image_id) if issue.image_id is not None else None
        if image is None:
            continue
        instance = next(
            (int(i) for i in data.instances_in(image) if data.ids[i] == issue.annotation_id), None
        )
        if instance is None or not data.has_box[instance]:
            card = _draw_images(data, [data.paths[image]])
        else:
            picture = draw_masks(data, [instance], _SIDE)[instance]
            category = data.categories[data.labels[instance]].name
            card = {"pictures": picture, "name": category, "lines": [data.paths[image]]}
        about = "" if issue.annotation_id is None else f"annotation {issue.annotation_id}"
        cards.append({**card, "lines": [*card["lines"], about]})
        if len(cards) == _MAX_PICTURES:
            break
    return cards


def _draw_images(data: Annotations, paths: Sequence[str]) -> dict[str, Any]:
    """Draw images with all their objects, side by side."""
    pictures: dict[str, str] | str = {}
    try:
        for path in paths:
            image = data.paths.index(path)
            pixels = read_image(data.image_path(image))
            pictures[path] = embed(draw_thumbnail(data, image, pixels, _SIDE))  # type: ignore[index]
    except (BoxelError, ValueError) as error:
        pictures = str(error)
    return {"pictures": pictures, "name": " and ".join(Path(path).name for path in paths), "lines": []}
