from .affinity import affinity_loss as affinity_loss
from .affinity import color_similarity as color_similarity
from .affinity import supervised_affinity_loss as supervised_affinity_loss
from .affinity import valid_pixels as valid_pixels
from .affinity import warmup_weight as warmup_weight
from .area import area_loss as area_loss
from .bootstrap import bootstrapped_cross_entropy as bootstrapped_cross_entropy
from .bootstrap import select_hard_pixels as select_hard_pixels
from .dice import dice_loss as dice_loss
from .head_mixing import mix_heads as mix_heads
from .lab import rgb_to_lab as rgb_to_lab
from .localization import bootstrapped_box_loss as bootstrapped_box_loss
from .localization import size_weights as size_weights
from .mil import mil_loss as mil_loss
from .mil import smoothness_loss as smoothness_loss
from .projection import projection_loss as projection_loss
from .types import Inside as Inside
from .types import MixingSpace as MixingSpace
from .types import Normalizer as Normalizer
from .types import Reduction as Reduction

__all__ = [
    "Inside",
    "MixingSpace",
    "Normalizer",
    "Reduction",
    "affinity_loss",
    "area_loss",
    "bootstrapped_box_loss",
    "bootstrapped_cross_entropy",
    "color_similarity",
    "dice_loss",
    "mil_loss",
    "mix_heads",
    "projection_loss",
    "rgb_to_lab",
    "select_hard_pixels",
    "size_weights",
    "smoothness_loss",
    "supervised_affinity_loss",
    "valid_pixels",
    "warmup_weight",
]
