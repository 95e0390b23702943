"""Losses as pure functions of tensors, each usable alone in anybody's model."""
