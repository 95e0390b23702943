"""Candidate segments that the authors of MCG published: a MATLAB file per image."""

from __future__ import annotations

import zlib
from pathlib import Path

import numpy as np

from boxel.data.matlab import read_mat
from boxel.proposals.candidates import Candidates
from boxel.utils.errors import BoxelError

_MAX_SUPERPIXELS = 2**16


def read_mcg(file: Path, size: tuple[int, ...], count: int) -> Candidates:
    """Read the best segments of an image from a file of MCG's published segments.

    Args:
        file: Has `superpixels`, an (H, W) map, `labels`, a cell of the superpixels of each segment, and `scores`.
        size: (height, width) of the image.
        count: Maximum number of segments.

    Returns:
        The segments, highest score first.

    Raises:
        BoxelError: There is no such file, it cannot be read, or it is of an image of another size.
    """
    try:
        superpixels, labels, scores = (read_mat(file, name) for name in ("superpixels", "labels", "scores"))
        names, numbers = np.unique(superpixels, return_inverse=True)
        if superpixels.shape != size or len(names) > _MAX_SUPERPIXELS:
            shape = " x ".join(map(str, superpixels.shape))
            raise ValueError(
                f"{len(names)} superpixels of an image of {shape} pixels, not {size[0]} x {size[1]}"
            )
        if len(labels) != np.size(scores):
            raise ValueError(f"{len(labels)} segments and {np.size(scores)} scores")
        best = np.argsort(-np.ravel(scores), kind="stable")[:count].tolist()
        sets = np.array([np.isin(names, labels[segment]) for segment in best], dtype=bool)
        sets = sets.reshape(-1, len(names))  # also without segments
    except (OSError, ValueError, TypeError, AttributeError, zlib.error) as error:
        raise BoxelError(f"{file}: cannot be read as segments of MCG ({error}).") from None
    return Candidates.from_sets(numbers.reshape(size), sets[sets.any(1)])
