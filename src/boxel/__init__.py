"""boxel: pixels from boxes.

data = boxel.read("boxes.json", images="photos/")
masks = boxel.label(data)
model = boxel.train("boxinst", data, epochs=12)
instances = model.predict("street.jpg")
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from boxel.data import read, write
    from boxel.labeling.api import label
    from boxel.models.io import load
    from boxel.training import train

__version__ = "0.1.0"
__all__ = ["label", "load", "read", "train", "write"]

_HOMES = {
    "BoxelError": "boxel.utils.errors",
    "read": "boxel.data",
    "write": "boxel.data",
    "label": "boxel.labeling.api",
    "load": "boxel.models.io",
    "train": "boxel.training",
}


def __getattr__(name: str) -> Any:
    """Import a function when it is first used: `import boxel` alone does not wait for torch."""
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'boxel' has no attribute {name!r}")
