"""Settings of the augmentations: of whole images, of crops for semantic segmentation, and of crops around boxes."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from boxel.utils.config import ClosedUnitInterval, Config, NonNegativeFloat, PositiveFloat, PositiveInt
from boxel.utils.errors import BoxelError


@dataclass
class AugmentConfig(Config):
    """Augmentation of whole images.

    Attributes:
        short_sides: Lengths of the shorter side in pixels, one drawn per image (multi-scale training).
        max_size: Maximum length of the longer side, in pixels.
        min_side: Median of the longer sides of the boxes, in pixels of the resized images, below which a detector's
            images are resized to up to 1.5 times these lengths, but not beyond their own size. Null, or with one of
            these lengths given: never.
        flip: Probability of a left-right flip.
        color: Strength of random brightness, contrast and saturation; 0 leaves colors alone.
        crop: Probability that part of an image is cut out before it is resized, as for SSD: so objects come in more
            sizes, and cut off.
        copy_paste: Probability that objects of another image, cut out by their masks or by those of a teacher, are
            pasted into an image (Ghiasi et al. 2021).

    Examples:
        >>> AugmentConfig(short_sides=[320], flip=0.5).max_size
        1333
    """

    short_sides: list[PositiveInt] = field(default_factory=lambda: [640, 672, 704, 736, 768, 800])
    max_size: PositiveInt = 1333
    min_side: PositiveFloat | None = None
    flip: ClosedUnitInterval = 0.5
    color: ClosedUnitInterval = 0.0
    crop: ClosedUnitInterval = 0.0
    copy_paste: ClosedUnitInterval = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.short_sides:
            raise BoxelError("short_sides is []; give at least one length in pixels.")


@dataclass
class ScaleCropConfig(Config):
    """Augmentation of the squares of images that a semantic segmenter is trained on.

    Attributes:
        long_side: Length to which the longer side of each image is resized, in pixels; None keeps the image's size.
        scale: Minimum and maximum factor on that size, drawn per image.
        crop: Side of the square that is cut out, in pixels, a multiple of 16. Smaller images are padded with the mean
            color, whose pixels are ignored.
        flip: Probability of a left-right flip.
        color: Strength of random brightness, contrast and saturation; 0 leaves colors alone.

    Examples:
        >>> ScaleCropConfig(long_side=500, crop=320).scale
        (0.7, 1.3)
    """

    long_side: PositiveInt | None = None
    scale: tuple[PositiveFloat, PositiveFloat] = (0.7, 1.3)
    crop: PositiveInt = 512
    flip: ClosedUnitInterval = 0.5
    color: ClosedUnitInterval = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        _check_multiple("crop", self.crop, 16)
        _check_factors("scale", self.scale)


@dataclass
class CropConfig(Config):
    """Augmentation of the crops around boxes that a box-to-mask model is trained on.

    Attributes:
        side: Side of a training crop in pixels, a multiple of 32.
        shift: Maximum shift of a crop's center, as a share of the box's width and height (section 3.2.2; the authors'
            code has half of the paper's).
        scale: Minimum and maximum factor on a crop's width and height, drawn independently (section 3.2.2).
        clip: Cut crops off at the image's border, as the authors' code does, instead of padding them.
        salient: Part of a salient image that is cropped: nearly the whole `image`, or its `box` like that of any other
            instance.
        salient_count: Number of salient images to use, drawn with the run's seed (Table 3); None uses all.
        flip: Probability of a left-right flip.
        color: Strength of random brightness, contrast and saturation; 0 leaves colors alone.
        box_noise: Standard deviation of the error added to boxes of instances that have a mask, as a share of width and
            height; it makes the network tolerate boxes that are not tight.
        salient_ratio: Ratio of instances of boxed images to salient images in a batch (Table 5; the paper's best is
            9 to 7). An epoch is one pass over the salient images.
        random: Draw at random from both datasets instead of at a fixed ratio (Table 5, "RS").
        overlap_drop: Probability that an instance is left out of an epoch because another box overlaps it with an IoU
            above 0.5; the paper's code has 0.75 on COCO.

    Examples:
        >>> CropConfig(side=100)
        Traceback (most recent call last):
        boxel.utils.errors.BoxelError: side is 100; give a multiple of 32.
    """

    side: PositiveInt = 288
    shift: NonNegativeFloat = 0.25
    scale: tuple[PositiveFloat, PositiveFloat] = (0.5, 1.5)
    clip: bool = True
    salient: Literal["image", "box"] = "image"
    salient_count: PositiveInt | None = None
    flip: ClosedUnitInterval = 0.5
    color: ClosedUnitInterval = 0.0
    box_noise: NonNegativeFloat = 0.0
    salient_ratio: tuple[int, int] = (9, 7)
    random: bool = False
    overlap_drop: ClosedUnitInterval = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        _check_multiple("side", self.side, 32)
        _check_factors("scale", self.scale)
        if min(self.salient_ratio) < 0 or max(self.salient_ratio) == 0:
            raise BoxelError(f"salient_ratio is {self.salient_ratio}; give two numbers, e.g. 9 and 7.")


def _check_multiple(name: str, value: int, factor: int) -> None:
    if value % factor:
        raise BoxelError(f"{name} is {value}; give a multiple of {factor}.")


def _check_factors(name: str, factors: tuple[float, float]) -> None:
    if factors[0] > factors[1]:
        raise BoxelError(f"{name} is {factors}; give a minimum and a maximum factor, e.g. 0.5 and 2.")
