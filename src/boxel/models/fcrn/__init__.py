"""FCRN (Wu et al., 2016): semantic segmentation learned from hard pixels, and instances by voting."""

import lazy_loader as _lazy

__getattr__, __dir__, __all__ = _lazy.attach_stub(__name__, __file__)
