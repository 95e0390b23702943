"""Plots: their panels, colors and line styles."""

import sys

import numpy as np
import pytest
from PIL import Image

from boxel.utils.errors import BoxelError
from boxel.viz.plots import plot_affinity, plot_curves, plot_trimap


def colors_in(path):
    image = Image.open(path).convert("RGB")
    return {color for _, color in image.getcolors(image.width * image.height)}


BLUE, RED, ORANGE = (31, 119, 180), (214, 39, 40), (255, 127, 14)  # matplotlib's tab: colors


@pytest.mark.slow
def test_curves_count_steps_from_1_as_the_log_does(tmp_path, monkeypatch):
    plots = []
    monkeypatch.setattr("boxel.viz.plots._save_figure", lambda figure, path: plots.append(figure))
    (tmp_path / "metrics.csv").write_text("step,loss/total,val/AP\n0,2.5,\n1,2.0,0.0\n")
    plot_curves(tmp_path / "metrics.csv", tmp_path / "curves.png")
    losses, validation = plots[0].axes
    assert losses.lines[0].get_xdata().tolist() == [1, 2] and validation.get_ylim()[0] == 0
    assert all(step == int(step) for step in losses.get_xticks())


def test_plot_curves_of_a_log_with_gaps(tmp_path):
    log = tmp_path / "metrics.csv"
    log.write_text(
        "epoch,step,loss/classification,loss/projection,lr-AdamW,val/mask_AP\n"
        "0,0,2.0,1.0,,\n0,0,,,0.001,\n0,50,1.5,nan,,\n0,99,,,,0.1\n1,150,1.0,inf,,\n1,199,,,,0.2\n1,2"
    )
    plot_curves(log, tmp_path / "out" / "curves.png")
    three_panels = Image.open(tmp_path / "out" / "curves.png").size
    assert {BLUE, ORANGE} <= colors_in(tmp_path / "out" / "curves.png")

    log.write_text("epoch,step,loss/classification\n0,0,2.0\n0,50,1.0\n")
    plot_curves(log, tmp_path / "two.png")
    two_panels = Image.open(tmp_path / "two.png").size
    assert two_panels[0] == three_panels[0]
    assert two_panels[1] * 3 == three_panels[1] * 2
    assert BLUE in colors_in(tmp_path / "two.png")
    assert ORANGE not in colors_in(tmp_path / "two.png")


def test_plot_curves_leaves_the_weights_of_losses_out(tmp_path):
    log = tmp_path / "metrics.csv"
    log.write_text("epoch,step,weight/affinity\n0,0,0.1\n0,50,1.0\n")
    plot_curves(log, tmp_path / "curves.png")
    assert BLUE not in colors_in(tmp_path / "curves.png")


@pytest.mark.slow
@pytest.mark.parametrize("text", ["", "epoch,step,loss\n", "epoch,step,loss\n0,0,\n"])
def test_plot_curves_before_anything_is_logged(tmp_path, text):
    (tmp_path / "metrics.csv").write_text(text)
    plot_curves(tmp_path / "metrics.csv", tmp_path / "curves.png")
    assert BLUE not in colors_in(tmp_path / "curves.png")


def test_plot_curves_without_a_file(tmp_path):
    with pytest.raises(BoxelError, match=r"metrics\.csv: cannot be read"):
        plot_curves(tmp_path / "metrics.csv", tmp_path / "curves.png")


def test_plot_affinity_is_blue_and_red(tmp_path):
    table = {"tau": [0.0, 0.1, 0.2], "precision": [0.94, 0.98, 0.99], "recall": [1.0, 0.9, 0.8]}
    plot_affinity(table, tmp_path / "affinity.png")
    assert {BLUE, RED} <= colors_in(tmp_path / "affinity.png")
    pixels = np.asarray(Image.open(tmp_path / "affinity.png").convert("RGB"))[:, :-10]
    top = {c: np.nonzero((pixels == c).all(2))[0].min() for c in (BLUE, RED)}
    assert top[RED] < top[BLUE]  # only recall reaches 1


@pytest.mark.slow
def test_plot_trimap_has_a_color_a_name_and_a_dashed_boundary(tmp_path):
    curves = {
        "masks only": {"width": [1, 10, 40], "boundary": [0.3, 0.5, 0.6], "interior": [0.65, 0.7, None]},
        "more boxes": {"width": [1, 10, 40], "boundary": [0.32, 0.52, 0.62], "interior": [0.7, 0.76, np.nan]},
    }
    plot_trimap(curves, tmp_path / "new" / "trimap.png")
    assert {BLUE, ORANGE} <= colors_in(tmp_path / "new" / "trimap.png")
    flat = {"width": [1, 40], "boundary": [0.4, 0.4], "interior": [0.8, 0.8]}
    plot_trimap({"a": flat}, tmp_path / "flat.png")
    pixels = np.asarray(Image.open(tmp_path / "flat.png").convert("RGB"))
    rows = (pixels == BLUE).all(2).sum(1)
    interior, boundary = rows[: len(rows) // 2].max(), rows[len(rows) // 2 :].max()
    assert 0 < boundary < 0.8 * interior  # solid above, dashed below


def test_a_plot_that_cannot_be_written_is_an_error(tmp_path):
    flat = {"width": [1], "boundary": [0.4], "interior": [0.8]}
    with pytest.raises(BoxelError, match="is not an image format"):
        plot_trimap({"a": flat}, tmp_path / "a.what")
    (tmp_path / "file").write_text("")
    with pytest.raises(BoxelError, match="cannot be written"):
        plot_trimap({"a": flat}, tmp_path / "file" / "a.png")


def test_without_matplotlib_the_extra_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(BoxelError, match=r"a plot needs matplotlib.*boxel\[train\]"):
        plot_trimap({}, tmp_path / "a.png")
