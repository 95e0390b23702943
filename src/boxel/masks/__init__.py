"""Geometry of masks and boxes: run-length codes, regions, crops, GrabCut; with PyTorch also spans, pasting and NMS."""

import lazy_loader as _lazy

__getattr__, __dir__, __all__ = _lazy.attach_stub(__name__, __file__)
