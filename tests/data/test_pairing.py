"""Images of two datasets, paired by their names."""

from dataclasses import replace

import pytest

from boxel.data.pairing import pair_images
from boxel.data.samples import sample_images


@pytest.mark.parametrize(
    ("own", "other", "pairs"),
    [
        ([r"C:\data\A.JPG", "gro\u0308ße.png"], ["größe.jpg", "x/a.jpg"], [1, 0]),
        (["a/1.jpg", "b/1.jpg"], ["1.jpg", "2.jpg"], [None, None]),  # either may be 1.jpg
        (["1.png", "1.jpg"], ["1.jpg", "2.jpg"], [None, 0]),
        (["1.png", "1.bmp"], ["1.png", "1_2.bmp"], [0, 1]),  # as boxel writes them into one folder
        (["a_1.jpg", "b_1.jpg"], ["b/1.png", "a/1.png"], [1, 0]),
        (["train/1.jpg", "val/1.jpg"], ["val/1.jpg", "test/1.jpg"], [None, 0]),
        (
            ["val/1.jpg", "val/2.jpg"],
            ["val_2.png", "train_1.png"],
            [None, 0],
        ),  # one split of what was written
        (["val_2.png", "a.png"], ["x/val/2.jpg", "x/train/2.jpg"], [0, None]),
        (["", ""], ["", ""], [None, None]),
    ],
)
def test_images_are_paired_by_names_that_are_of_one_image(own, other, pairs):
    data = sample_images().select_images([0, 1])
    assert pair_images(replace(data, paths=own), replace(data, paths=other)) == pairs
