"""Masks of boxes for annotation tools: what Label Studio and CVAT ask for, in their own protocols."""

import lazy_loader as _lazy

__getattr__, __dir__, __all__ = _lazy.attach_stub(__name__, __file__)
