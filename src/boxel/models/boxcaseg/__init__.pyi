from .config import BoxCasegConfig as BoxCasegConfig
from .model import BoxCaseg as BoxCaseg

__all__ = [
    "BoxCaseg",
    "BoxCasegConfig",
]
