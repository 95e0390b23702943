"""Mask R-CNN (He et al., ICCV 2017) of torchvision, learned from true masks, proxy masks or boxes alone."""

import lazy_loader as _lazy

__getattr__, __dir__, __all__ = _lazy.attach_stub(__name__, __file__)
