"""Mask R-CNN (He et al., ICCV 2017) of torchvision, taught by true masks, proxy masks or boxes alone."""

from boxel.models.mask_rcnn.config import MaskRCNNConfig
from boxel.models.mask_rcnn.model import MaskRCNN

__all__ = ["MaskRCNN", "MaskRCNNConfig"]
