"""A local page to look at masks, accept, reject and correct them; every decision is kept at once."""

import lazy_loader as _lazy

__getattr__, __dir__, __all__ = _lazy.attach_stub(__name__, __file__)
