"""The report on a labeled set: one HTML file of figures, faults, and the worst and the best masks to look at."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

from boxel.data.annotations import Annotations
from boxel.utils.errors import BoxelError
from boxel.viz.report import sections
from boxel.viz.report.figures import quality_of
from boxel.viz.report.markup import document, listing, text


def write_report(
    data: Annotations,
    path: str | os.PathLike[str],
    *,
    bad: Sequence[str] = (),
    changed: Sequence[str] = (),
    settings: Mapping[str, Any] | None = None,
    count: int = 24,
) -> None:
    """Write a page on a labeled set: how many masks there are, how good they are, which to look at, what went wrong.

    The file needs nothing beside it: no script, no font, no picture from elsewhere. Of the photos only those that are
    shown are read, and one that can't be costs only its own picture. However large the set, the page stays small.

    Args:
        data: a set with masks; its crowds are not heeded.
        path: the file to write.
        bad: a sentence for each image that could not be labeled.
        changed: the images that were labeled anew, since they had changed.
        settings: how it was labeled, by name.
        count: how many of the worst masks are shown, and how many of the best.

    Raises:
        BoxelError: the file can't be written.

    Example:
        >>> write_report(boxel.label("boxes.json"), "report.html")  # doctest: +SKIP
    """
    page = _page(data.select_instances(~data.iscrowd), bad, changed, settings or {}, count)
    path = Path(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        # The name of a file may hold bytes that are no UTF-8.
        path.write_text(page, encoding="utf-8", errors="backslashreplace")
    except OSError as error:
        raise BoxelError(
            f"{path}: can't be written ({error.strerror or error}); check the folder."
        ) from error


def _page(
    data: Annotations, bad: Sequence[str], changed: Sequence[str], settings: Mapping[str, Any], count: int
) -> str:
    quality = quality_of(data)
    title = f"Masks from boxes: {text(Path(data.file).name or data.root.name)}"
    return document(
        title,
        style=files("boxel.viz.report").joinpath("report.css").read_text(encoding="utf-8"),
        header=f"<h1>{title}</h1>\n{sections.overview(data, quality, len(bad))}",
        sections={
            "Quality": sections.of_quality(data, quality),
            "Groups": sections.of_groups(data),
            **sections.of_masks(data, quality, count),
            "Faults": sections.of_faults(data, bad),
            "Labeled anew": listing(changed),
            "Settings": sections.of_settings(settings),
        },
    )
