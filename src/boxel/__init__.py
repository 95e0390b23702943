"""boxel: pixels from boxes."""

__version__ = "0.1.0"
