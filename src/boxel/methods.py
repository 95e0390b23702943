"""The methods that boxel trains: one entry each, and the only place that lists them.

The parts of a method are references, ``"package.module:name"``, that are imported when they are used. So this module
loads nothing heavy, and it may name packages of the layers above it.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module
from typing import Any, Literal

from boxel.utils.errors import UsageError, nearest


@dataclass(frozen=True)
class ExtraInput:
    """Something that a method learns from or builds on beside its annotations."""

    name: str  # the argument of `boxel.train`
    kind: Literal["data", "run"]  # a file or folder of data, or a trained model
    help: str  # what it is, in one line
    required: bool = False


@dataclass(frozen=True)
class Method:
    """Everything that distinguishes a method from the others.

    A `detector` finds the instances of an image, a `segmenter` gives each pixel a class, and a `box_to_mask` model
    predicts one mask per given box.
    """

    name: str  # in commands, recipes and run folders
    help: str  # what it trains, and from what, in one sentence
    kind: Literal["detector", "segmenter", "box_to_mask"]
    training: str  # the settings of a run, a subclass of `TrainConfig`
    config: str  # the settings of the model
    model: str  # takes the number of classes, unless it is `box_to_mask`, and its settings
    task: str  # the steps and validations of a run, a subclass of `Task`
    samples: str  # the function that makes the training samples
    small: str  # the recipe for a machine without a GPU
    paper: str  # a link to it, as Markdown
    check: str = "boxel.training.prepare:check_instances"  # refuses a dataset without anything to learn from
    inputs: tuple[ExtraInput, ...] = ()  # what it takes beside annotations
    exporter: str | None = None  # the graph that its models are exported as, if they can be


METHODS = {
    method.name: method
    for method in (
        Method(
            name="boxinst",
            help="Train BoxInst, an instance segmenter, from boxes, masks or any mix.",
            kind="detector",
            training="boxel.training.config:BoxInstTraining",
            config="boxel.models.boxinst.config:BoxInstConfig",
            model="boxel.models.boxinst.model:BoxInst",
            task="boxel.training.instances:InstanceTask",
            samples="boxel.training.instances:make_image_samples",
            small="boxinst-small",
            paper="[BoxInst](https://arxiv.org/abs/2012.02310)",
            exporter="boxel.exporting.boxinst:BoxInstGraph",
        ),
        Method(
            name="mask-rcnn",
            help="Train Mask R-CNN, an instance segmenter, from masks (`boxel label` makes them) or from boxes.",
            kind="detector",
            training="boxel.training.config:MaskRCNNTraining",
            config="boxel.models.mask_rcnn.config:MaskRCNNConfig",
            model="boxel.models.mask_rcnn.model:MaskRCNN",
            task="boxel.training.instances:InstanceTask",
            samples="boxel.training.instances:make_image_samples",
            small="mask-rcnn-small",
            paper="[Mask R-CNN](https://arxiv.org/abs/1703.06870)",
            exporter="boxel.exporting.mask_rcnn:MaskRCNNGraph",
        ),
        Method(
            name="boxcaseg",
            help="Train BoxCaseg, which predicts masks for boxes, from boxes and images of single objects with masks.",
            kind="box_to_mask",
            training="boxel.training.config:BoxCasegTraining",
            config="boxel.models.boxcaseg.config:BoxCasegConfig",
            model="boxel.models.boxcaseg.model:BoxCaseg",
            task="boxel.training.crops:CropTask",
            samples="boxel.training.crops:make_crop_samples",
            small="boxcaseg-small",
            paper="[BoxCaseg](https://arxiv.org/abs/2104.01526)",
            inputs=(
                ExtraInput(
                    "salient",
                    "data",
                    "images of single objects: a folder of images/ and masks/, or any dataset with masks",
                ),
            ),
            exporter="boxel.exporting.boxcaseg:BoxCasegGraph",
        ),
        Method(
            name="fcrn",
            help="Train FCRN, a semantic segmenter, from label maps or masks (`boxel label` makes them).",
            kind="segmenter",
            training="boxel.training.config:FCRNTraining",
            config="boxel.models.fcrn.config:FCRNConfig",
            model="boxel.models.fcrn.model:FCRN",
            task="boxel.training.semantic:SemanticTask",
            samples="boxel.training.semantic:make_semantic_samples",
            small="fcrn-coco-small",
            paper="[FCRN](https://arxiv.org/abs/1605.06885)",
            check="boxel.training.prepare:check_labels",
            exporter="boxel.exporting.semantic:SegmenterGraph",
        ),
        Method(
            name="fcrn-instances",
            help="Train the localization network by which FCRN finds instances, from masks.",
            kind="detector",
            training="boxel.training.config:FCRNInstancesTraining",
            config="boxel.models.fcrn.config:FCRNInstancesConfig",
            model="boxel.models.fcrn.instances:FCRNInstances",
            task="boxel.training.instances:InstanceTask",
            samples="boxel.training.semantic:make_voting_samples",
            small="fcrn-instances-small",
            paper="[FCRN](https://arxiv.org/abs/1605.06885)",
            check="boxel.training.prepare:check_masks",
            inputs=(
                ExtraInput(
                    "semantic", "run", "a run of fcrn or boxsup, which classifies the pixels", required=True
                ),
            ),
        ),
        Method(
            name="boxsup",
            help="Train BoxSup, a semantic segmenter, from boxes, masks or any mix.",
            kind="segmenter",
            training="boxel.training.config:BoxSupTraining",
            config="boxel.models.boxsup.config:BoxSupConfig",
            model="boxel.models.boxsup.model:BoxSup",
            task="boxel.training.boxsup:BoxSupTask",
            samples="boxel.training.boxsup:make_boxsup_samples",
            small="boxsup-small",
            paper="[BoxSup](https://arxiv.org/abs/1503.01640)",
            check="boxel.training.prepare:check_instances_or_labels",
            exporter="boxel.exporting.semantic:SegmenterGraph",
        ),
    )
}
"""All methods by name."""

SEMANTIC = tuple(name for name, method in METHODS.items() if method.kind == "segmenter")
"""The methods whose models give each pixel a class."""


def get_method(name: str) -> Method:
    """Return the method of a name, in which an underscore may stand for a hyphen.

    Examples:
        >>> get_method("boxcaseg").kind
        'box_to_mask'
    """
    spelled = str(name).replace("_", "-")
    if spelled not in METHODS:
        raise UsageError(
            f"there is no method {name!r}; the methods are {', '.join(METHODS)}.{nearest(name, list(METHODS))}"
        )
    return METHODS[spelled]


def resolve(reference: str) -> Any:
    """Import what a reference of the form ``"package.module:name"`` names.

    Examples:
        >>> resolve("boxel.utils.errors:UsageError").__name__
        'UsageError'
    """
    module, _, name = reference.partition(":")
    return getattr(import_module(module), name)
