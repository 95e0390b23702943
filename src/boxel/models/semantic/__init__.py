"""The shared fully convolutional network of the semantic segmenters, and how photos are shown to it."""

from boxel.models.semantic.config import SemanticConfig
from boxel.models.semantic.model import Segmenter
from boxel.models.semantic.network import FullyConvolutional

__all__ = ["FullyConvolutional", "Segmenter", "SemanticConfig"]
