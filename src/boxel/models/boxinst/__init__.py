"""BoxInst (Tian et al., CVPR 2021): instance segmentation learned from boxes."""

from boxel.models.boxinst.config import BoxInstConfig
from boxel.models.boxinst.model import BoxInst

__all__ = ["BoxInst", "BoxInstConfig"]
