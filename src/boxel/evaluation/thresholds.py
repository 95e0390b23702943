"""The minimum scores at which the detections of a model serve best."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from boxel.data.annotations import Annotations
from boxel.evaluation.analysis import find_matches
from boxel.evaluation.operating_point import best_threshold
from boxel.evaluation.results import Result
from boxel.models.thresholds import ScoreThresholds

MIN_INSTANCES = 10  # of a class that gets a threshold of its own


def choose_thresholds(truth: Annotations, results: Sequence[Result]) -> ScoreThresholds | None:
    """Choose the minimum score of the detections of each class by the best F1.

    A detection is right if its mask matches an instance at an IoU of 0.5; its box if there are no true masks.

    Args:
        truth: The ground truth.
        results: Detections in the COCO results format, with masks if the truth has any.

    Returns:
        The :func:`best_threshold` over all classes, and of each class with at least 10 instances of which any is found.
        None if no instance is found at all.

    Examples:
        >>> from boxel.data import example_scenes
        >>> from boxel.evaluation import to_results
        >>> truth = example_scenes()
        >>> choose_thresholds(truth, to_results(truth))
        {'all': 0.5, 'by_class': {}}
    """
    matches = find_matches(truth, results)
    instances = matches.instances
    overall = best_threshold(matches.scores, matches.correct, int(instances.sum()))
    if not overall.f1 > 0:  # NaN without instances
        return None
    by_class = {}
    for label in np.flatnonzero(instances >= MIN_INSTANCES).tolist():
        own = matches.labels == label
        best = best_threshold(matches.scores[own], matches.correct[own], int(instances[label]))
        if best.f1 > 0:
            by_class[truth.categories[label].name] = round(best.threshold, 6)
    return {"all": round(overall.threshold, 6), "by_class": by_class}
