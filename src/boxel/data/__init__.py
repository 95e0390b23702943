"""Annotated images: the in-memory data set, its formats, its faults, and what feeds training."""

from boxel.data.annotations import Annotations, Category
from boxel.data.faults import Fault
from boxel.data.formats import read, write

__all__ = ["Annotations", "Category", "Fault", "read", "write"]
