"""BoxCaseg (Wang et al., 2021): masks for boxes, learned from boxes and salient images."""

from boxel.models.boxcaseg.config import BoxCasegConfig
from boxel.models.boxcaseg.model import BoxCaseg

__all__ = ["BoxCaseg", "BoxCasegConfig"]
