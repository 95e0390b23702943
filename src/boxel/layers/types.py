"""Choices of the layers, importable without torch so that settings can name them."""

from typing import Literal

Norm = Literal["frozen_bn", "bn", "sync_bn", "gn"]
"""Frozen batch norm, batch norm, batch norm over all devices, group norm."""
