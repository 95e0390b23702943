"""FCRN: semantic segmentation that learns from hard pixels, and instances by voting."""

from boxel.models.fcrn.config import FCRNConfig
from boxel.models.fcrn.instances import FCRNInstances, FCRNInstancesConfig
from boxel.models.fcrn.model import FCRN

__all__ = ["FCRN", "FCRNConfig", "FCRNInstances", "FCRNInstancesConfig"]
