"""Settings of a training run. A recipe is a YAML file with these fields."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

from boxel.data.config import AugmentConfig, CropConfig, ScaleCropConfig
from boxel.models.boxcaseg import BoxCasegConfig
from boxel.models.boxinst import BoxInstConfig
from boxel.models.boxsup import BoxSupConfig, UpdateConfig
from boxel.models.fcrn import FCRNConfig, FCRNInstancesConfig
from boxel.models.mask_rcnn import MaskRCNNConfig
from boxel.proposals import ProposalConfig
from boxel.utils.config import (
    ClosedUnitInterval,
    Config,
    HalfOpenUnitInterval,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
)

SEGMENTS = "segments"
"""The value of `label` with which the boxes of BoxSup choose among candidate segments."""

ALIASES = {
    name: f"data.{name}"
    for name in ("categories", "class_agnostic", "class_list", "mask_classes", "min_box", "rename")
}
"""Short names of settings: arguments of :func:`boxel.train` and flags of `boxel train`."""


@dataclass
class DataConfig(Config):
    """Which part of the dataset is learned from.

    Attributes:
        rename: New names of categories by their old ones; categories that get the same name become one. All other
            settings use the new names.
        categories: The only categories to learn, in this order; by default all.
        class_agnostic: Learn all categories as one.
        mask_classes: Categories whose masks are learned from, while instances of the others count as boxes (BoxInst,
            Tables 6 and 7); by default all masks are used, with an empty list none.
        min_box: Boxes with a side shorter than this many pixels are ignored: neither object nor background.
        class_list: Names of the values of label maps: a text file, or `camvid`, `voc`, `cityscapes` or
            `pascal-context`.
        val_share: Share of the images, drawn with the run's seed, to validate on if no validation data is given and the
            dataset has no split `val`; 0 validates on none.
        workers: Processes that decode images; 0 decodes in the training process.
    """

    rename: dict[str, str] = field(default_factory=dict)
    categories: list[str] | None = None
    class_agnostic: bool = False
    mask_classes: list[str] | None = None
    min_box: NonNegativeFloat = 0.0
    class_list: str | None = None
    val_share: HalfOpenUnitInterval = 0.1
    workers: NonNegativeInt = 2


@dataclass
class OptimConfig(Config):
    """The optimizer.

    Attributes:
        name: `sgd` or `adamw`.
        lr: Learning rate at `reference_batch` samples per step, scaled in proportion to the effective batch size.
        backbone_lr: Factor on `lr` for the backbone; 0.1 keeps AdamW from washing out pretrained features.
        bias_lr: Factor on the learning rate of biases.
        momentum: Momentum of SGD.
        weight_decay: Decay of weights; norms and biases have none.
        reference_batch: Samples per step for which `lr`, `steps` and `warmup` are meant; 0 takes them as they are.
        clip: Maximum norm of the gradient; 0 for no limit.
    """

    name: Literal["sgd", "adamw"] = "sgd"
    lr: NonNegativeFloat = 0.01
    backbone_lr: NonNegativeFloat = 1.0
    bias_lr: NonNegativeFloat = 1.0
    momentum: ClosedUnitInterval = 0.9
    weight_decay: NonNegativeFloat = 1e-4
    reference_batch: NonNegativeInt = 16
    clip: NonNegativeFloat = 0.0


@dataclass
class ScheduleConfig(Config):
    """The schedule of the learning rate.

    Attributes:
        kind: `step` multiplies by 0.1 at each of `drops`, `cosine` falls to 0 along half a wave, `poly` to 0 by
            (1 - progress) ** `power`.
        warmup: Steps of linear increase at the start.
        drops: Points of the schedule at which `step` drops, as shares of its length.
        power: Exponent of `poly`.
        hold: Share of the schedule before `cosine` or `poly` starts to fall.
    """

    kind: Literal["step", "cosine", "poly"] = "step"
    warmup: NonNegativeInt = 1000
    drops: list[ClosedUnitInterval] = field(default_factory=lambda: [2 / 3, 8 / 9])
    power: NonNegativeFloat = 0.9
    hold: HalfOpenUnitInterval = 0.0


@dataclass
class TrainConfig(Config):
    """Settings of a training run of any method; each method adds its own in a subclass.

    Attributes:
        label: Teacher of `boxel label` that predicts masks of the boxes that have none before the first step; by
            default none does.
        epochs: Passes over the training samples; without effect if `steps` is given too.
        steps: Optimizer steps at `optim.reference_batch` samples per step.
        batch_size: Samples per step and process.
        accumulate: Batches whose gradients are averaged for one step.
        ema: Decay per step of the exponential moving average of the weights that is validated and kept, less in the
            first steps; 0 for none.
        precision: Lightning's precision, e.g. `32-true`, `bf16-mixed` or `16-mixed`. Mask losses are always in float32.
        validate_every: Epochs between two validations.
        patience: Validations without improvement after which the training ends; 0 never ends it early.
        checkpoint_every: Optimizer steps between checkpoints of the last state.
        loggers: Where the metrics go beside `metrics.csv`: `tensorboard`, `wandb` (Weights & Biases) and `mlflow`.
        seed: Seed of the split, the order, the augmentation and the new layers.
        device: `auto`, `cpu`, `cuda` or `mps`.
        devices: Number of devices per machine, or `auto`.
        nodes: Number of machines.
        strategy: Lightning's strategy, e.g. `ddp`.
        threads: Threads of PyTorch on the CPU, per process; by default `OMP_NUM_THREADS` if it is set, else one per
            core that the run may use, which several processes of a machine share.
    """

    data: DataConfig = field(default_factory=DataConfig)
    label: str | None = None
    optim: OptimConfig = field(default_factory=OptimConfig)
    schedule: ScheduleConfig = field(default_factory=ScheduleConfig)
    epochs: PositiveFloat = 12
    steps: PositiveInt | None = None
    batch_size: PositiveInt = 4
    accumulate: PositiveInt = 1
    ema: ClosedUnitInterval = 0.0
    precision: str = "32-true"
    validate_every: PositiveFloat = 1.0
    patience: NonNegativeInt = 0
    checkpoint_every: PositiveInt = 200
    loggers: list[Literal["tensorboard", "wandb", "mlflow"]] = field(default_factory=lambda: ["tensorboard"])
    seed: int = 0
    device: str = "auto"
    devices: int | str = "auto"
    nodes: PositiveInt = 1
    strategy: str = "auto"
    threads: PositiveInt | None = None

    @property
    def hardware(self) -> dict[str, Any]:
        """The devices, as arguments of Lightning's `Fabric` and `Trainer`."""
        return dict(
            accelerator=self.device, devices=self.devices, num_nodes=self.nodes, strategy=self.strategy
        )

    @property
    def teacher(self) -> str | None:
        """The teacher that predicts masks before the first step, if any."""
        return None if self.label == SEGMENTS else self.label


@dataclass
class BoxInstTraining(TrainConfig):
    """Settings of a training run of BoxInst.

    Attributes:
        hints: Teacher of `boxel label` whose masks are the hints of boxes without a mask if `model.hint_weight` is not
            0; those of a quality below 0.5 are left out.
    """

    model: BoxInstConfig = field(default_factory=BoxInstConfig)
    hints: str = "boxcaseg"
    augment: AugmentConfig = field(default_factory=AugmentConfig)


@dataclass
class BoxCasegTraining(TrainConfig):
    """Settings of a training run of BoxCaseg. A sample is a crop, and an epoch is one pass over the salient images.

    Attributes:
        hints: Teacher of `boxel label` whose masks are the hints of boxes without a mask if `model.hint_weight` is not
            0; those of a quality below 0.5 are left out.
    """

    model: BoxCasegConfig = field(default_factory=BoxCasegConfig)
    hints: str = "grabcut-ellipse"
    crops: CropConfig = field(default_factory=CropConfig)
    optim: OptimConfig = field(default_factory=lambda: OptimConfig(lr=0.004))
    schedule: ScheduleConfig = field(default_factory=lambda: ScheduleConfig(kind="poly", warmup=0))
    epochs: PositiveFloat = 40
    batch_size: PositiveInt = 16


@dataclass
class MaskRCNNTraining(TrainConfig):
    """Settings of a training run of Mask R-CNN."""

    model: MaskRCNNConfig = field(default_factory=MaskRCNNConfig)
    augment: AugmentConfig = field(default_factory=AugmentConfig)


@dataclass
class FCRNTraining(TrainConfig):
    """Settings of a training run of FCRN. A sample is a square of an image."""

    model: FCRNConfig = field(default_factory=FCRNConfig)
    views: ScaleCropConfig = field(default_factory=ScaleCropConfig)
    optim: OptimConfig = field(default_factory=lambda: OptimConfig(lr=0.0016, weight_decay=5e-4))
    schedule: ScheduleConfig = field(default_factory=lambda: ScheduleConfig(kind="poly", warmup=0))
    epochs: PositiveFloat = 64
    batch_size: PositiveInt = 16


@dataclass
class FCRNInstancesTraining(FCRNTraining):
    """Settings of a training run of FCRN's localization network."""

    model: FCRNInstancesConfig = field(default_factory=FCRNInstancesConfig)  # type: ignore[assignment]


@dataclass
class BoxSupTraining(TrainConfig):
    """Settings of a training run of BoxSup. A sample is a square of an image; the schedule is section 4.3's.

    Attributes:
        label: With `segments` each box chooses among candidate segments, as in the paper. Otherwise the teacher of
            `boxel label` that predicts masks of the boxes that have none before the first step.
        mask_share: Share of each epoch for images whose instances all have given masks, if other images have guessed
            ones: the former are repeated to reach it, up to ten times each. 0 repeats none.
        segments_folder: Folder of the candidate segments, which several runs may share; by default
            the folder `segments` of the run.
    """

    model: BoxSupConfig = field(default_factory=BoxSupConfig)
    views: ScaleCropConfig = field(default_factory=ScaleCropConfig)
    label: str = SEGMENTS
    mask_share: HalfOpenUnitInterval = 0.33
    segments: ProposalConfig = field(default_factory=ProposalConfig)
    segments_folder: str | None = None
    updates: UpdateConfig = field(default_factory=UpdateConfig)
    optim: OptimConfig = field(
        default_factory=lambda: OptimConfig(lr=0.001, weight_decay=5e-4, reference_batch=20)
    )
    schedule: ScheduleConfig = field(default_factory=lambda: ScheduleConfig(warmup=0, drops=[1 / 3, 2 / 3]))
    epochs: PositiveFloat = 45
    batch_size: PositiveInt = 20
