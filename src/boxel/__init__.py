"""boxel: segmentation from bounding boxes.

>>> import boxel
>>> segmenter = boxel.BoxSegmenter()  # masks of given boxes of an image
>>> data = boxel.read("boxes.json", images="photos/")  # doctest: +SKIP
>>> masks = boxel.label(data, out="masks.json")  # doctest: +SKIP
>>> model = boxel.train("boxinst", masks, epochs=12)  # doctest: +SKIP
>>> instances = model.predict("street.jpg")  # doctest: +SKIP
"""

import lazy_loader as _lazy

__version__ = "0.1.0"

_load, _, __all__ = _lazy.attach_stub(__name__, __file__)
__all__ += ["__version__"]


def __getattr__(name: str) -> object:
    """Import a public name when it is first used."""
    from boxel.utils.errors import naming_extra

    with naming_extra(f"boxel.{name}"):
        return _load(name)


def __dir__() -> list[str]:
    return __all__
