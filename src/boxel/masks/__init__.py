"""Geometry of masks and boxes: run-length codes, regions, crops, GrabCut, clicks; with PyTorch spans, pasting, NMS."""

import lazy_loader as _lazy

__getattr__, __dir__, __all__ = _lazy.attach_stub(__name__, __file__)
