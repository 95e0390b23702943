"""The demos: on photos of installed packages, and on generated scenes."""

from boxel.demo.scenes import demo

__all__ = ["demo"]
