"""Figure 4's counts, against a picture small enough to count by hand and a loop over all pairs."""

import dataclasses
import math
from itertools import product

import msgspec
import numpy as np
import pytest
from PIL import Image
from skimage.color import rgb2lab

from boxel.data.annotations import Annotations, Category
from boxel.data.synthetic import write_scenes
from boxel.evaluation.affinity import TAUS, AffinityConfig, count_edges
from boxel.masks.rle import encode
from boxel.utils.errors import BoxelError


def _set(folder, image, box, mask):
    """A dataset of one image and one instance."""
    Image.fromarray(image).save(folder / "0.png")
    return Annotations(
        root=folder,
        image_ids=[1],
        paths=["0.png"],
        widths=np.array([image.shape[1]], dtype=np.int32),
        heights=np.array([image.shape[0]], dtype=np.int32),
        categories=(Category(1, "thing"),),
        ids=[1],
        image_index=np.zeros(1, dtype=np.int32),
        labels=np.zeros(1, dtype=np.int32),
        boxes=np.array([box], dtype=np.float64),
        iscrowd=np.zeros(1, dtype=bool),
        segmentations=np.array([msgspec.json.encode(encode(mask))], dtype=object),
        file="one.json",
    )


def test_two_halves_counted_by_hand(tmp_path):
    # 3 x 2 cells of 4 x 4 pixels. Left column of cells black and object, the others white and not; the box
    # holds the left two columns. With a patch of 3 and a dilation of 1 the grid has 11 edges:
    #   2 upright in columns 0 and 1 (the one in column 2 has no end in the box)   -> positive, alike
    #   4 level, 2 of them 0-1 (other label, other color), 2 of them 1-2 (same, same)
    #   4 slanting, 2 of them 0-1, 2 of them 1-2
    image = np.full((8, 12, 3), 255, dtype=np.uint8)
    image[:, :4] = 0
    mask = np.zeros((8, 12), dtype=bool)
    mask[:, :4] = True
    counts = count_edges(_set(tmp_path, image, [0, 0, 8, 8], mask), AffinityConfig(dilation=1))
    assert counts.tau.tolist() == list(TAUS) and TAUS[0] == 0
    assert counts.above.tolist() == [10, *[6] * 11]
    assert counts.positive.tolist() == [6] * 12
    assert counts.all_positive == 6
    assert counts.precision.tolist() == [0.6, *[1.0] * 11]
    assert counts.recall.tolist() == [1.0] * 12


@pytest.mark.parametrize(("size", "dilation", "theta"), [(3, 2, 2.0), (5, 1, 4.0)])
def test_against_a_loop_over_all_pairs(tmp_path, size, dilation, theta):
    rng = np.random.default_rng(3)
    small = rng.integers(100, 130, (5, 6, 3), dtype=np.uint8)
    image = small.repeat(4, axis=0).repeat(4, axis=1)
    mask = rng.random((5, 6)) < 0.5
    box = np.array([1, 1, 4, 4])  # cells
    whole = mask.repeat(4, axis=0).repeat(4, axis=1)
    config = AffinityConfig(size=size, dilation=dilation, theta=theta)
    counts = count_edges(_set(tmp_path, image, box * 4, whole), config)

    lab = rgb2lab(small)
    reach = [step * dilation for step in range(-(size // 2), size // 2 + 1)]
    above, positive, everything = [0] * 12, [0] * 12, 0
    cells = list(product(range(5), range(6)))
    for a, b in product(cells, cells):
        near = b[0] - a[0] in reach and b[1] - a[1] in reach
        inside = [box[0] <= x < box[2] and box[1] <= y < box[3] for y, x in (a, b)]
        if a < b and near and any(inside):
            likeness = math.exp(-math.dist(lab[a], lab[b]) / theta)
            same = mask[a] == mask[b]
            everything += same
            for k, tau in enumerate(TAUS):
                above[k] += likeness >= tau
                positive[k] += same and likeness >= tau
    assert (counts.above.tolist(), counts.positive.tolist()) == (above, positive)
    assert counts.all_positive == everything
    assert 0 < counts.recall[1] < 1 and 0 < counts.precision[1] < 1


def test_resizing_flat_halves_leaves_the_counts(tmp_path):
    image = np.full((16, 24, 3), 255, dtype=np.uint8)
    image[:, :8] = 0
    mask = np.zeros((16, 24), dtype=bool)
    mask[:, :8] = True
    data = _set(tmp_path, image, [0, 0, 16, 16], mask)
    small = count_edges(data, AffinityConfig(dilation=1, short_side=8))
    assert (small.above[0], small.all_positive) == (10, 6)


def test_an_unreadable_image_is_logged_and_skipped(tmp_path, caplog):
    data = write_scenes(tmp_path, 3, height=64, width=96)
    rest = count_edges(data.select_images([0, 2]))
    (tmp_path / "images" / "000001.png").write_bytes(b"no image")
    found = count_edges(data)
    assert np.array_equal(found.above, rest.above) and found.all_positive == rest.all_positive
    assert len(caplog.records) == 1 and "000001.png" in caplog.text


def test_similar_colors_predict_equal_labels_on_scenes(tmp_path):
    counts = count_edges(write_scenes(tmp_path, 3, height=64, width=96))
    enough = counts.precision[counts.above >= 50]  # a share of fewer edges is noise
    assert (np.diff(enough) > -0.02).all() and enough[-1] > enough[0] + 0.02
    assert np.isnan(counts.precision[counts.above == 0]).all()
    assert (np.diff(counts.recall) <= 0).all() and counts.recall[0] == 1


def test_a_dataset_without_masks_is_refused(tmp_path):
    data = write_scenes(tmp_path, 1, height=64, width=96)
    with pytest.raises(BoxelError, match="has no masks"):
        count_edges(dataclasses.replace(data, segmentations=np.full(len(data.ids), None, dtype=object)))
