"""Models as files of `boxel export`, run by onnxruntime without PyTorch."""

import lazy_loader as _lazy

__getattr__, __dir__, __all__ = _lazy.attach_stub(__name__, __file__)
