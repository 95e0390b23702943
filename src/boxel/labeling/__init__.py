"""Masks from boxes: teachers predict them, overlaps are resolved, and a resumable job labels whole datasets."""

import lazy_loader as _lazy

__getattr__, __dir__, __all__ = _lazy.attach_stub(__name__, __file__)
