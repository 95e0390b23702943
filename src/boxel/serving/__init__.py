"""Web services: masks for Label Studio and CVAT in their protocols, and predictions as COCO JSON."""

import lazy_loader as _lazy

__getattr__, __dir__, __all__ = _lazy.attach_stub(__name__, __file__)
