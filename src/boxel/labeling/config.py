"""Every choice of how a set is labeled."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from math import inf
from typing import Any, Literal

from boxel.utils.errors import BoxelError, check_range, nearest


@dataclass
class LabelConfig:
    """How masks are made of boxes.

    Attributes:
        teachers: who draws the masks (see :func:`~boxel.labeling.teachers.make_teacher`); what several say is averaged.
        reliability: weight of each teacher's probabilities, by its name and the name of a category; 1 where none is
            given, 0 leaves the teacher out for that category.
        flip: ask about the mirrored image too, and average; where None, of teachers that gain by it (BoxCaseg).
        min_max: stretch the probabilities of each box to reach from 0 to 1 before the threshold of 0.5, so that every
            box gets some object (the authors' code does).
        crf: let a fully connected CRF draw each mask to the photo's colors, from the probabilities of the teachers.
        margin: how far a mask may reach past its box on each side, as a share of the box's width and height.
        box_slack: by how much each side of a box may be off, as a share of the box's width and height, in a set
            whose boxes are known to be loose. It adds to `margin`, and a mask's box is compared with the nearest box
            within it.
        min_island: parts of a mask below this share of its area are removed; the largest stays.
        merge: what happens where masks overlap. `surer`: the object of the larger box loses the pixel if the mask of
            the smaller one is as sure of it or surer, else both keep it; `smaller`: the object of the smaller box has
            it (Section 3.4); `none`: both keep it.
        drop: least IoU of a mask's tight box with its box (proxy box agreement, Section 3.4 and Table 8); a mask below
            it stays, marked as not trusted.
        relabel: make new masks for instances that have one that is trusted, too.
        workers: threads, an image each.
        device: where networks run: `auto` (a GPU where there is one), `cpu`, `cuda`, `mps`.
    """

    teachers: list[str] = field(default_factory=lambda: ["boxcaseg"])
    reliability: dict[str, dict[str, float]] = field(default_factory=dict)
    flip: bool | None = None
    min_max: bool = False
    crf: bool = False
    margin: float = 0.0
    box_slack: float = 0.0
    min_island: float = 0.02
    merge: Literal["surer", "smaller", "none"] = "surer"
    drop: float = 0.0
    relabel: bool = False
    workers: int = 2
    device: str = "auto"

    def __post_init__(self) -> None:
        if not self.teachers:
            raise BoxelError("teachers is empty; name one at least.")
        check_range(self, 0, 1, "margin", "min_island", "drop")
        check_range(self, 0, 0.49, "box_slack")  # two halves would leave nothing between them
        check_range(self, 1, inf, "workers")
        for teacher, weights in self.reliability.items():
            for category, weight in weights.items():
                if not 0 <= weight < inf:
                    raise BoxelError(
                        f"reliability of {teacher} for {category} is {weight}; give a number from 0 up."
                    )


def label_config(config: LabelConfig | Mapping[str, Any] | None = None, **changes: Any) -> LabelConfig:
    """A configuration, its values checked by type.

    Args:
        config: what is left out has its default.
        **changes: values that win over it.

    Raises:
        BoxelError: a name is no setting, or a value makes no sense.
    """
    from jsonargparse import ArgumentParser

    values = (asdict(config) if isinstance(config, LabelConfig) else dict(config or {})) | changes
    known = [entry.name for entry in fields(LabelConfig)]
    for name in values:
        if name not in known:
            raise BoxelError(f"there is no setting {name!r} of labeling.{nearest(name, known)}")
    parser = ArgumentParser(exit_on_error=False)
    parser.add_class_arguments(LabelConfig, None)
    try:
        parsed = parser.parse_object(values)
    except Exception as error:
        raise BoxelError(f"the settings of labeling: {' '.join(str(error).split())}") from error
    return LabelConfig(**vars(parsed))
