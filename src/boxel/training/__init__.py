"""The one training harness, on Lightning, for every model."""

from boxel.training.config import TrainConfig
from boxel.training.run import train

__all__ = ["TrainConfig", "train"]
