"""Trained models as ONNX files, checked against what they were made of."""

from boxel.exporting.onnx import export

__all__ = ["export"]
