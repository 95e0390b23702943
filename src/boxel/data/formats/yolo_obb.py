"""YOLO with oriented boxes: ``class x1 y1 x2 y2 x3 y3 x4 y4``; see :mod:`boxel.data.formats.yolo`, which reads it."""

from __future__ import annotations

from boxel.data.formats.yolo import read, recognize
from boxel.data.formats.yolo_writer import write_oriented as write

__all__ = ["read", "recognize", "write"]
