"""Instances by voting on the true class of each pixel: what FCRN's localization network alone can reach."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn.functional import one_hot

from boxel.data.annotations import Annotations, Category
from boxel.data.images import read_image
from boxel.data.label_maps import BACKGROUND_NAME, IGNORE_INDEX
from boxel.evaluation.semantic import load_labels
from boxel.models.fcrn.instances import FCRNInstances
from boxel.models.inference import predict_batch
from boxel.models.instances import Instances
from boxel.models.settings import InferenceConfig
from boxel.utils.errors import UsageError


def predict_with_true_classes(
    model: Any, data: Annotations, config: InferenceConfig | None = None, errors: list[str] | None = None
) -> Iterator[tuple[int, Instances]]:
    """Yield the index and the instances of each image; pixels without a label count as background.

    Args:
        model: An `FCRNInstances` in eval mode.
        data: Images with masks or label maps.
        config: Preprocessing and test-time augmentation. None: as in the training of the model.
        errors: Gets a message per image that cannot be used; each is also logged as a warning.

    Raises:
        UsageError: The model does not classify pixels.
        BoxelError: The dataset has none of the model's classes, or no image can be used.

    References:
        Wu, Shen, van den Hengel (FCRN), 2016, Section 3.2: the pilot experiment.
    """
    if not isinstance(model, FCRNInstances):
        raise UsageError(
            f"`true_classes` does nothing here, since a {type(model).__name__} finds no instances by voting; leave it "
            "out."
        )
    if config is not None and config.tile is not None:
        raise UsageError("`tile` does nothing here, since `true_classes` needs whole images; leave it out.")
    classes = (Category(0, BACKGROUND_NAME), *model.categories)
    device = next(model.parameters()).device

    def read(image: int) -> NDArray[np.uint8]:
        return read_image(data.image_path(image))

    for image, pixels, labels in load_labels(data, classes, np.arange(len(data)), read, errors):
        labels[labels == IGNORE_INDEX] = 0
        scores = one_hot(torch.from_numpy(labels).long(), len(classes)).permute(2, 0, 1).float()
        (instances,) = predict_batch(model, [pixels], config, [scores.to(device)])
        yield image, instances
