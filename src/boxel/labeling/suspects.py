"""Find boxes that look wrong by content: their masks suggest no object, two objects, or far too much background.

The cues of the quality tell it for two kinds, each by a linear score that is fitted on boxes that were spoiled on
purpose (`benchmarks/suspects.py`). The thresholds are strict: a list that is mostly wrong is not read.
"""

from __future__ import annotations

import json
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from boxel.data.suspects import SUSPECTS
from boxel.labeling.fusion import LabeledImage
from boxel.labeling.quality import CUES, find_bundled
from boxel.masks.components import find_components

_EMPTY, _TWO_OBJECTS, _LOOSE = SUSPECTS

MIN_SIDE = 16.0
"""Minimum shorter side, in pixels, of boxes that are judged."""

MIN_SECOND_PART = 0.5
"""A mask is of two objects if the second largest part has at least this share of the largest one's area..."""

MAX_THIRD_PART = 0.1
"""...and the third largest, if any, less than this."""


@dataclass(frozen=True)
class SuspectScores:
    """Linear scores of cues; a box whose score is above zero is suspect.

    Attributes:
        mean: (C,) means of the cues that they were fitted on.
        scale: (C,) their standard deviations.
        weights: For each kind (1 + C,) weights of a constant and the standardized cues.
    """

    mean: NDArray[np.float64]
    scale: NDArray[np.float64]
    weights: dict[str, NDArray[np.float64]]

    def judge(self, cues: NDArray[np.float64], labeled: LabeledImage) -> list[str | None]:
        """Return what may be wrong with each box of an image, one of `SUSPECTS`, or None.

        Args:
            cues: (N, C) cues of its masks.
            labeled: The image with its masks.
        """
        height, width = labeled.image.shape[:2]
        boxes = labeled.boxes.clip(0, [width, height] * 2)
        terms = standardize(cues, self.mean, self.scale)
        scores = {kind: terms @ weights for kind, weights in self.weights.items()}
        suspects: list[str | None] = []
        for index, mask in enumerate(labeled.unmerged):
            if mask is None or (boxes[index, 2:] - boxes[index, :2]).min() < MIN_SIDE:
                suspects.append(None)
                continue
            kind = max(scores, key=lambda name: scores[name][index])
            two = _TWO_OBJECTS if has_two_parts(mask) else None
            suspects.append(kind if scores[kind][index] > 0 else two)
        return suspects


def standardize(
    cues: NDArray[np.float64], mean: NDArray[np.float64], scale: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Return (N, 1 + C) a constant and the standardized cues; outliers are clipped."""
    return np.concatenate([np.ones((len(cues), 1)), ((cues - mean) / scale).clip(-3, 3)], axis=1)


def has_two_parts(mask: NDArray[np.bool_]) -> bool:
    """Return whether a mask consists of two separate parts of similar size.

    Examples:
        >>> has_two_parts(np.array([[True, False, True]])), has_two_parts(np.array([[True, True, False]]))
        (True, False)
    """
    areas = find_components(mask).areas
    if len(areas) < 2:
        return False
    first, second, third = np.sort([*areas, 0])[::-1][:3]
    return bool(second >= MIN_SECOND_PART * first and third < MAX_THIRD_PART * first)


def find_suspect_scores(teacher: str) -> SuspectScores | None:
    """Find the scores of a bundled teacher; None if there are none.

    Examples:
        >>> sorted(find_suspect_scores("boxcaseg").weights)
        ['empty', 'far too loose']
    """
    path = find_bundled("suspects", teacher)
    if path is None:
        return None
    content = json.loads(path.read_text(encoding="utf-8"))
    mean, scale = (np.array([content[name][cue] for cue in CUES]) for name in ("mean", "scale"))
    weights = {
        kind: np.array([weights["constant"], *(weights[cue] for cue in CUES)])
        for kind, weights in content["weights"].items()
    }
    return SuspectScores(mean, scale, weights)
