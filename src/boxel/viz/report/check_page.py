"""The report of a check: one HTML file with what a dataset holds and what is wrong with it."""

from __future__ import annotations

import os
from collections.abc import Sequence
from datetime import date
from pathlib import Path

from boxel import __version__
from boxel.data.checks.statistics import Statistics
from boxel.data.issues import Issue, describe_repairs, group_by_kind
from boxel.utils.printable import printable
from boxel.viz.output import writing_file
from boxel.viz.report.page import render

_EXAMPLES = 20  # messages per kind of issue, and groups of images; more are counted


def write_check_report(
    statistics: Statistics, issues: Sequence[Issue], path: str | os.PathLike[str], command: str = ""
) -> None:
    """Write a page on a dataset: what it holds, and its issues with the first examples of each kind.

    The file is self-contained: no scripts, fonts or pictures.

    Args:
        statistics: What `collect_statistics` counted.
        issues: What `check` found.
        path: The file to write.
        command: The command line that checked the dataset.

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
    kinds = sorted(group_by_kind(issues).items(), key=lambda item: -len(item[1]))
    groups = {
        "Images in several splits, or like one of another split": statistics.leaks,
        "Images of the same content": statistics.identical_images,
        "Images that look the same": statistics.similar_images,
    }
    context = {
        "name": Path(statistics.file).name or statistics.file,
        "s": statistics,
        "kinds": kinds,
        "describe_repairs": describe_repairs,
        "issues": len(issues),
        "groups": {title: found for title, found in groups.items() if found},
        "largest_class": max(statistics.classes.values(), default=0),
        "examples": _EXAMPLES,
        "command": command,
        "date": date.today(),
        "version": __version__,
    }
    with writing_file(path) as file:
        file.write_text(printable(render("check.html.j2", context)), encoding="utf-8")
