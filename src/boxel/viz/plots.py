"""Plots of training runs and measurements (matplotlib, extra `train`)."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from numpy.typing import ArrayLike

from boxel.utils.errors import missing_extra
from boxel.viz.curves import Curve, group_curves, read_curves
from boxel.viz.names import describe_measure
from boxel.viz.output import writing_file

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def _make_figure(width: float, height: float) -> Figure:
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise missing_extra("a plot", error) from error
    return Figure(figsize=(width, height), layout="constrained")


def _save_figure(figure: Figure, path: str | os.PathLike[str]) -> None:
    with writing_file(path) as file:
        figure.savefig(file, dpi=120)


def _finish_plot(axes: Axes, path: str | os.PathLike[str], **properties: Any) -> None:
    """Add labels, a grid and a legend to the only plot of a figure, and write it."""
    axes.set(**properties)
    axes.grid(alpha=0.3)
    axes.legend(fontsize="small")
    _save_figure(cast("Figure", axes.figure), path)


def plot_curves(csv_path: str | os.PathLike[str], out: str | os.PathLike[str]) -> None:
    """Plot losses, validation metrics and learning rates of a run against its steps, one panel per kind.

    Most cells of the `metrics.csv` are empty, since each row holds what was logged at one moment.
    """
    panels = group_curves(read_curves(csv_path))
    if not panels["learning rate"]:
        del panels["learning rate"]
    figure = _make_figure(9, 3.2 * len(panels))
    for axes, (title, curves) in zip(figure.subplots(len(panels), sharex=True), panels.items(), strict=True):
        _plot_panel(axes, title, curves)
    axes.set(xlabel="step")
    axes.xaxis.get_major_locator().set_params(integer=True)
    _save_figure(figure, out)


def _plot_panel(axes: Axes, title: str, curves: Mapping[str, Curve]) -> None:
    for name, (steps, values) in curves.items():
        # One marker per value as long as they do not merge.
        marker = "o" if len(steps) < 40 else None
        axes.plot(
            steps, values, label=describe_measure(name).name, linewidth=1.2, marker=marker, markersize=3
        )
    axes.set(title=title)
    if title == "validation" and all(min(values) >= 0 for _, values in curves.values()):
        axes.set_ylim(bottom=0)
    axes.grid(alpha=0.3)
    if curves:
        axes.legend(fontsize="small", loc="center left", bbox_to_anchor=(1, 0.5))
    else:
        axes.text(0.5, 0.5, "nothing logged yet", ha="center", va="center", transform=axes.transAxes)


def plot_affinity(table: Mapping[str, ArrayLike], out: str | os.PathLike[str]) -> None:
    """Plot how well color predicts that two pixels have the same label (BoxInst, Figure 4).

    The table has T values each of `tau`, `precision` and `recall`, as of :class:`~boxel.evaluation.EdgeCounts`.
    """
    axes = _make_figure(5, 3.6).subplots()
    curves = [
        ("precision", "tab:blue", "positive share of the edges kept"),
        ("recall", "tab:red", "share of the positive edges kept"),
    ]
    for name, color, label in curves:
        axes.plot(np.asarray(table["tau"]), table[name], "o-", color=color, markersize=3, label=label)
    threshold = "color similarity threshold \N{GREEK SMALL LETTER TAU}"
    _finish_plot(axes, out, xlabel=threshold, ylabel="proportion", ylim=(0, 1.02))


def plot_recall(curves: Mapping[str, ArrayLike], out: str | os.PathLike[str]) -> None:
    """Plot how well the best candidate segments fit, by their number, which is the curve `count`."""
    axes = _make_figure(6, 4).subplots()
    for name, values in curves.items():
        if name != "count":
            axes.plot(np.asarray(curves["count"]), np.asarray(values), marker=".", label=name)
    _finish_plot(axes, out, xscale="log", ylim=(0, 1), xlabel="candidate segments per image")


def plot_trimap(curves: Mapping[str, Mapping[str, ArrayLike]], out: str | os.PathLike[str]) -> None:
    """Plot mean IoU against the width of the band around true boundaries (BoxSup, Figure 4).

    By the name of a segmenter, the curves are T values each of `width`, in pixels; `boundary`, the mean IoU inside the
    band; and `interior`, that outside it. Undefined values, NaN or None, leave a gap.
    """
    axes = _make_figure(6, 4).subplots()
    for number, (name, values) in enumerate(curves.items()):
        for part, style in (("interior", ".-"), ("boundary", ".--")):
            ious = np.asarray(values[part], dtype=np.float64)  # None becomes NaN
            axes.plot(np.asarray(values["width"]), ious, style, color=f"C{number}", label=f"{name}, {part}")
    _finish_plot(axes, out, xlabel="width of the band (pixels)", ylabel="mean IoU")
