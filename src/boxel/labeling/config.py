"""Settings of labeling."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from jsonargparse.typing import restricted_number_type

from boxel.utils.config import ClosedUnitInterval, Config, OpenUnitInterval, PositiveInt, parse_config
from boxel.utils.errors import BoxelError, UsageError

BoxSlack = restricted_number_type("BoxSlack", float, [(">=", 0), ("<", 0.5)])


@dataclass
class LabelConfig(Config):
    """How masks are made from boxes.

    Attributes:
        teachers: The teachers that predict the masks (see :func:`~boxel.labeling.teachers.make_teacher`); the
            probabilities of several are averaged.
        flip: Predict on the flipped image too, and average the probabilities, in twice the time.
        crf: Refine each mask with a fully connected CRF, so that it follows the colors of the image.
        box_slack: By how much each side of a box may be off, as a share of the box's width and height, in a dataset
            whose boxes are known to be loose. A mask may reach that far past its box, and is compared with the nearest
            box within it.
        min_component: Connected components below this share of a mask's area are removed; the largest one stays.
        merge: How overlaps are resolved. `confident`: the object of the larger box loses a pixel if the mask of the
            smaller one is at least as confident of it, else both keep it; `smaller`: the object of the smaller box
            takes it (BoxCaseg, Section 3.4); `none`: both keep it.
        drop: Minimum IoU of a mask's tight box with its box (BoxCaseg, Section 3.4 and Table 8); a mask below it is
            kept but marked as not trusted.
        guarantee: Trust only masks that are guaranteed to have this IoU with the truth: with 95 % confidence at least
            90 % of them do. It takes at least 29 true masks that are drawn at random from the dataset; the guarantee is
            for the others.
        carry: Where boxes have track ids, replace a doubtful mask by that of a neighboring frame, moved by optical
            flow, if this is estimated to be better; not with a guarantee.
        relabel: Also make new masks for instances that have one of yours: one that is trusted, and was not predicted.
        overwrite: Discard what was edited in the outputs since they were written, and replace an output that exists
            without the record of its job.
        workers: Threads, one image each.
        device: Where networks run: `auto` (CUDA if available), `cpu`, `cuda`, `mps`.

    Examples:
        >>> LabelConfig(merge="smaller", drop=0.9).drop
        0.9
    """

    teachers: list[str] = field(default_factory=lambda: ["boxcaseg"])
    flip: bool = False
    crf: bool = False
    box_slack: BoxSlack = 0.0  # type: ignore[valid-type]
    min_component: ClosedUnitInterval = 0.02
    merge: Literal["confident", "smaller", "none"] = "confident"
    drop: ClosedUnitInterval = 0.0
    guarantee: OpenUnitInterval | None = None
    carry: bool = True
    relabel: bool = False
    overwrite: bool = False
    workers: PositiveInt = 2
    device: str = "auto"

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.teachers:
            raise BoxelError("teachers is empty; name at least one.")
        if self.guarantee is not None and self.drop:
            raise UsageError("`drop` and `guarantee` both decide which masks are trusted; give one of them.")


def parse_label_config(
    config: LabelConfig | Mapping[str, object] | None = None, **changes: Any
) -> LabelConfig:
    """Build the settings of labeling from a mapping and from changes that take precedence."""
    values = asdict(config) if isinstance(config, LabelConfig) else dict(config or {})
    return parse_config(LabelConfig, values | changes, "the settings of labeling")
