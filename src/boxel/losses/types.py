"""Choices of the losses, importable without torch so that settings can name them."""

from typing import Literal

Inside = Literal["center", "either"]
"""Which edges belong to a box: those of the patches centered in it, or those with at least one end in it."""

Normalizer = Literal["supervised", "edges"]
"""What the affinity loss is divided by: the supervised edges, or all edges of the boxes."""

MixingSpace = Literal["logits", "probabilities"]
"""What is mixed of two heads."""

Projection = Literal["dice", "cross-entropy"]
"""How the projections of a mask and of its box are compared."""

Reduction = Literal["mean", "sum"]
"""How the terms of one instance become one number."""
