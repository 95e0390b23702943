"""Segments that MCG's authors published, as files of their layout."""

from dataclasses import replace

import numpy as np
import pytest
from scipy.io import savemat

from boxel.data.synthetic import write_scenes
from boxel.proposals.config import ProposalConfig
from boxel.proposals.mcg_files import read_mcg
from boxel.proposals.store import load_candidates, make_candidates
from boxel.utils.errors import BoxelError

QUARTERS = np.array([[1, 1, 2, 2], [1, 1, 2, 2], [5, 5, 9, 9]], dtype=np.uint16)


def save(file, superpixels=QUARTERS, labels=((1,), (2, 9), (), (1, 5)), scores=(0.1, 0.7, 0.6, 0.9)) -> None:
    cell = np.empty((len(labels), 1), dtype=object)
    for row, own in enumerate(labels):
        cell[row, 0] = np.array([own], dtype=np.int32)
    savemat(
        file,
        {"superpixels": superpixels, "labels": cell, "scores": np.array([scores]).T},
        do_compression=True,
    )


def test_segments_are_read_in_the_order_of_their_scores(tmp_path) -> None:
    save(tmp_path / "a.mat")
    found = read_mcg(tmp_path / "a.mat", (3, 4), 10)
    assert [found.mask(n).astype(int).tolist() for n in range(len(found))] == [
        [[1, 1, 0, 0], [1, 1, 0, 0], [1, 1, 0, 0]],
        [[0, 0, 1, 1], [0, 0, 1, 1], [0, 0, 1, 1]],
        [[1, 1, 0, 0], [1, 1, 0, 0], [0, 0, 0, 0]],
    ]
    assert found.superpixels.max() == 3
    assert len(read_mcg(tmp_path / "a.mat", (3, 4), 1)) == 1


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"superpixels": QUARTERS.T}, "4 superpixels of an image of 4 x 3 pixels, not 3 x 4"),
        ({"scores": (0.5,)}, "4 segments and 1 scores"),
        ({"superpixels": "text"}, r"cannot be read as segments of MCG"),
    ],
)
def test_other_files_are_refused(tmp_path, changed, message) -> None:
    save(tmp_path / "a.mat", **changed)
    with pytest.raises(BoxelError, match=rf"a\.mat: .*{message}"):
        read_mcg(tmp_path / "a.mat", (3, 4), 10)
    (tmp_path / "a.mat").write_bytes(b"torn")
    with pytest.raises(BoxelError, match=r"a\.mat: cannot be read as segments of MCG"):
        read_mcg(tmp_path / "a.mat", (3, 4), 10)


@pytest.mark.slow
def test_a_dataset_takes_the_files_of_its_images(tmp_path) -> None:
    data = write_scenes(tmp_path / "scenes", 2)
    config = ProposalConfig(fit_boxes=False, grabcut=False, files=str(tmp_path / "mcg"))
    (tmp_path / "mcg").mkdir()
    height, width = data.image_size(0)[::-1]
    halves = np.repeat([[3, 8]], height, axis=0).repeat(width // 2, axis=1)
    save(tmp_path / "mcg/000000.mat", halves, ((8,), (3,)), (0.2, 0.3))
    (error,) = make_candidates(data, tmp_path / "out", config)
    assert "000001.mat: cannot be read as segments of MCG" in error
    found = load_candidates(data, 0, tmp_path / "out", config)
    assert len(found) == 2 and found.mask(0)[:, 0].all() and not found.mask(0)[:, -1].any()
    assert len(load_candidates(data, 0, tmp_path / "out", replace(config, grabcut=True))) > 2


@pytest.mark.parametrize("settings", [{"fit_boxes": True}, {"fit_boxes": False, "source": "gop"}])
def test_files_are_neither_fitted_to_boxes_nor_of_another_source(settings) -> None:
    with pytest.raises(
        BoxelError, match=r"files is mcg/, whose segments are MCG's .*; set source to mcg and fit_boxes"
    ):
        ProposalConfig(files="mcg/", **settings)
