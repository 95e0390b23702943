"""BoxSup (Dai et al., ICCV 2015): a semantic segmenter whose candidate segments and network take turns."""

import lazy_loader as _lazy

__getattr__, __dir__, __all__ = _lazy.attach_stub(__name__, __file__)
