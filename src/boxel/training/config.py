"""Every choice of a training run. A recipe is this as YAML."""

from __future__ import annotations

from dataclasses import dataclass, field
from math import inf
from typing import Literal

from boxel.data.crops import CropConfig
from boxel.data.semantic import ViewConfig
from boxel.data.transforms import AugmentConfig
from boxel.models.boxcaseg import BoxCasegConfig
from boxel.models.boxinst import BoxInstConfig
from boxel.models.boxsup import BoxSupConfig, UpdateConfig
from boxel.models.fcrn import FCRNConfig, FCRNInstancesConfig
from boxel.models.mask_rcnn import MaskRCNNConfig
from boxel.proposals import ProposalConfig
from boxel.utils.errors import BoxelError, check_range

SEGMENTS = "segments"
"""The `label` of BoxSup's own labels."""


@dataclass
class DataConfig:
    """Which part of the data set is learned from.

    Attributes:
        rename: new names of categories by their old ones; those that come to one name become one category. All other
            settings go by the new names.
        categories: the only categories to learn, in this order; None learns all.
        class_agnostic: learn all categories as one.
        mask_classes: categories whose masks are learned from, while all others count as boxes (BoxInst, Tables 6
            and 7); None learns from every mask there is, an empty list from boxes alone.
        min_box: boxes with a side under this many pixels are ignored: neither object nor background.
        box_jitter: each box side is moved by up to this share of the box's extent, to measure what loose boxes cost.
        val_share: share of the images, drawn with the run's seed, to validate on where no `--val` is given; 0 for none.
        workers: processes that decode images; 0 decodes in the training process.
    """

    rename: dict[str, str] = field(default_factory=dict)
    categories: list[str] | None = None
    class_agnostic: bool = False
    mask_classes: list[str] | None = None
    min_box: float = 0.0
    box_jitter: float = 0.0
    val_share: float = 0.1
    workers: int = 2

    def __post_init__(self) -> None:
        check_range(self, 0, inf, "min_box", "workers")
        check_range(self, 0, 1, "box_jitter")
        check_range(self, 0, 0.99, "val_share")


@dataclass
class OptimConfig:
    """The optimizer.

    Attributes:
        name: `sgd` or `adamw`.
        lr: learning rate at `reference_batch` images a step; scaled in proportion to the real batch.
        backbone_lr: factor on `lr` for the backbone; 0.1 keeps pretrained features from being washed out by AdamW.
        momentum: of SGD.
        weight_decay: on weights; norms and biases have none.
        reference_batch: images a step that `lr`, `steps` and `warmup` are meant for; 0 takes them as they are.
        clip: largest norm of the gradient; 0 for no limit.
    """

    name: Literal["sgd", "adamw"] = "sgd"
    lr: float = 0.01
    backbone_lr: float = 1.0
    momentum: float = 0.9
    weight_decay: float = 1e-4
    reference_batch: int = 16
    clip: float = 0.0

    def __post_init__(self) -> None:
        check_range(self, 0, inf, "lr", "backbone_lr", "weight_decay", "reference_batch", "clip")
        check_range(self, 0, 1, "momentum")


@dataclass
class ScheduleConfig:
    """The learning rate's course.

    Attributes:
        kind: `step` multiplies by 0.1 at each of `drops`, `cosine` falls to 0 along half a wave, `poly` to 0 by
            (1 - progress) ** `power`.
        warmup: steps of linear rise at the start.
        drops: shares of the schedule where `step` drops.
        power: of `poly`.
        hold: share of the schedule before `cosine` or `poly` begins to fall.
    """

    kind: Literal["step", "cosine", "poly"] = "step"
    warmup: int = 1000
    drops: list[float] = field(default_factory=lambda: [2 / 3, 8 / 9])
    power: float = 0.9
    hold: float = 0.0

    def __post_init__(self) -> None:
        check_range(self, 0, inf, "warmup", "power")
        check_range(self, 0, 0.99, "hold")


@dataclass
class TrainConfig:
    """A training run of any method; what a method adds is in its own class.

    Attributes:
        data: which part of the data set is learned from.
        label: who makes masks of the boxes that have none, before the first step; a teacher that `boxel label` knows.
        optim: the optimizer.
        schedule: the learning rate's course.
        epochs: passes over the training images; `steps` overrides it.
        steps: optimizer steps at `optim.reference_batch` images a step.
        batch_size: images a step and process.
        accumulate: batches whose gradients make one step.
        ema: decay of the exponential moving average of the weights that is validated and kept; 0 for none.
        precision: Lightning's: `32-true`, `bf16-mixed`, `16-mixed`. Mask losses are in float32 in any case.
        validate_every: epochs from one validation to the next.
        patience: validations without a better result after which training ends; 0 goes on to the end.
        checkpoint_every: optimizer steps between checkpoints of the last state.
        seed: of the split, the order, the augmentation and the new layers.
        device: `auto`, `cpu`, `cuda`, `mps`.
        devices: how many a machine has to give, or `auto`.
        nodes: machines.
        strategy: Lightning's, as `ddp`.
    """

    data: DataConfig = field(default_factory=DataConfig)
    label: str | None = None
    optim: OptimConfig = field(default_factory=OptimConfig)
    schedule: ScheduleConfig = field(default_factory=ScheduleConfig)
    epochs: float = 12
    steps: int | None = None
    batch_size: int = 4
    accumulate: int = 1
    ema: float = 0.0
    precision: str = "32-true"
    validate_every: float = 1.0
    patience: int = 0
    checkpoint_every: int = 200
    seed: int = 0
    device: str = "auto"
    devices: int | str = "auto"
    nodes: int = 1
    strategy: str = "auto"

    def __post_init__(self) -> None:
        for name in ("epochs", "batch_size", "accumulate", "validate_every", "checkpoint_every"):
            if getattr(self, name) <= 0:
                raise BoxelError(f"{name} is {getattr(self, name)}; give a number above 0.")
        if self.steps is not None:
            check_range(self, 1, inf, "steps")
        check_range(self, 0, 1, "ema")
        check_range(self, 0, inf, "patience")


@dataclass
class BoxInstTraining(TrainConfig):
    """A training run of BoxInst.

    Attributes:
        model: the model's own choices.
        augment: what happens to a training image.
    """

    model: BoxInstConfig = field(default_factory=BoxInstConfig)
    augment: AugmentConfig = field(default_factory=AugmentConfig)


@dataclass
class BoxCasegTraining(TrainConfig):
    """A training run of BoxCaseg; an epoch is all salient images, and a batch is of crops.

    Attributes:
        model: the model's own choices.
        crops: what crops are shown.
    """

    model: BoxCasegConfig = field(default_factory=BoxCasegConfig)
    crops: CropConfig = field(default_factory=CropConfig)
    optim: OptimConfig = field(default_factory=lambda: OptimConfig(lr=0.004))
    schedule: ScheduleConfig = field(default_factory=lambda: ScheduleConfig(kind="poly", warmup=0))
    epochs: float = 40
    batch_size: int = 16


@dataclass
class MaskRCNNTraining(TrainConfig):
    """A training run of Mask R-CNN.

    Attributes:
        model: the model's own choices.
        augment: what happens to a training image.
    """

    model: MaskRCNNConfig = field(default_factory=MaskRCNNConfig)
    augment: AugmentConfig = field(default_factory=AugmentConfig)


@dataclass
class FCRNTraining(TrainConfig):
    """A training run of FCRN; a batch is of crops, one of an image.

    Attributes:
        model: the model's own choices.
        views: what of an image is shown.
    """

    model: FCRNConfig = field(default_factory=FCRNConfig)
    views: ViewConfig = field(default_factory=ViewConfig)
    optim: OptimConfig = field(default_factory=lambda: OptimConfig(lr=0.0016, weight_decay=5e-4))
    schedule: ScheduleConfig = field(default_factory=lambda: ScheduleConfig(kind="poly", warmup=0))
    epochs: float = 64
    batch_size: int = 16


@dataclass
class FCRNInstancesTraining(FCRNTraining):
    """A training run of FCRN's localization network.

    Attributes:
        model: the model's own choices.
    """

    model: FCRNInstancesConfig = field(default_factory=FCRNInstancesConfig)  # type: ignore[assignment]


@dataclass
class BoxSupTraining(TrainConfig):
    """A training run of BoxSup; a batch is of crops, one of an image. The schedule is the paper's (Section 4.3).

    Attributes:
        model: the model's own choices.
        views: what of an image is shown.
        label: who makes masks of the boxes that have none, before the first step; a teacher that `boxel label` knows.
            With `segments`, or None, each box chooses among candidate segments, as in the paper.
        mask_share: where all masks of some images were given, and others have such as are guessed, the former are
            shown several times an epoch to make this share of it, up to ten times each; 0 shows all alike.
        segments: the candidate segments.
        segments_folder: where candidate segments are kept, for runs to share; OUT/segments where None.
        updates: how one of them is chosen for each box.
    """

    model: BoxSupConfig = field(default_factory=BoxSupConfig)
    views: ViewConfig = field(default_factory=ViewConfig)
    label: str | None = "boxcaseg"
    mask_share: float = 0.33
    segments: ProposalConfig = field(default_factory=ProposalConfig)
    segments_folder: str | None = None
    updates: UpdateConfig = field(default_factory=UpdateConfig)
    optim: OptimConfig = field(
        default_factory=lambda: OptimConfig(lr=0.001, weight_decay=5e-4, reference_batch=20)
    )
    schedule: ScheduleConfig = field(default_factory=lambda: ScheduleConfig(warmup=0, drops=[1 / 3, 2 / 3]))
    epochs: float = 45
    batch_size: int = 20

    def __post_init__(self) -> None:
        super().__post_init__()
        check_range(self, 0, 0.99, "mask_share")
        self.label = self.label or SEGMENTS
