"""BoxCaseg (Wang et al., CVPR 2021): masks for boxes, learned from boxes and salient images."""

import lazy_loader as _lazy

__getattr__, __dir__, __all__ = _lazy.attach_stub(__name__, __file__)
