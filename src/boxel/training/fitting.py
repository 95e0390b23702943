"""Fit a run to its dataset: its length to the number of images, the sizes of its images and its pyramid to the boxes.

A semantic segmenter has nothing else to fit; it warns of a dataset that does not suit it.
"""

from __future__ import annotations

from boxel.training.input_size import settle_input_size
from boxel.training.level_scale import settle_level_scale
from boxel.training.log import rank_zero_logger
from boxel.training.prepare import TrainingData
from boxel.training.recipe import fit_length
from boxel.training.semantic_fit import warn_if_unsuited
from boxel.training.settings import Run

logger = rank_zero_logger(__name__)


def fit_to_data(run: Run, data: TrainingData, resume: bool) -> None:
    """Settle what follows from the dataset, unless the user or the recipe did."""
    settle_length(run, data)
    settle_input_size(run, data.training)
    settle_level_scale(run, data.training, resume)
    if run.segmenter and not resume:
        warn_if_unsuited(run, data.training)


def settle_length(run: Run, data: TrainingData) -> None:
    """Set `steps` if the recipe is meant for another number of samples; a resumed run comes to the same number."""
    salient = data.salient
    samples, unit = (len(data.training), "images") if salient is None else (len(salient), "salient images")
    steps = fit_length(run.recipe, samples, run.settings)
    if steps is None:
        return
    run.settings.steps = steps
    logger.info(
        "%d steps, since there are %d %s (`%s` is meant for another number); `steps` or `epochs` decides otherwise",
        *(steps, samples, unit, run.recipe),
    )
