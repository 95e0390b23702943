"""What each method is trained on, and how it is validated."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from boxel.data.annotations import Annotations
from boxel.training.boxsup import BoxSupTask, guessed_views
from boxel.training.crops import CropTask, crops
from boxel.training.instances import InstanceTask, whole_images
from boxel.training.lit_module import Task
from boxel.training.loader import Samples
from boxel.training.prepare import check_instances, check_instances_or_labels, check_labels, check_masks
from boxel.training.semantic import SemanticTask, instance_views, views


class Method(NamedTuple):
    """The parts of a training that depend on the method.

    Attributes:
        samples: what is learned from, given the set, a second set or None, the settings, the run's folder and the
            model.
        task: steps and validations.
        check: raises a `BoxelError` where there is nothing in a set to learn from.
        second_set: what else it learns from: `salient` images, or `candidates`, other masks of the same instances.
        needs_semantic: whether it builds on a run that gives pixels a class.
    """

    samples: Callable[..., Samples]
    task: type[Task]
    check: Callable[[Annotations], None] = check_instances
    second_set: str | None = None
    needs_semantic: bool = False


METHODS = {
    "boxinst": Method(whole_images, InstanceTask),
    "mask_rcnn": Method(whole_images, InstanceTask),
    "boxcaseg": Method(crops, CropTask, second_set="salient"),
    "fcrn": Method(views, SemanticTask, check_labels),
    "fcrn-instances": Method(instance_views, InstanceTask, check_masks, needs_semantic=True),
    "boxsup": Method(guessed_views, BoxSupTask, check_instances_or_labels, "candidates"),
}
