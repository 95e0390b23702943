"""Trained models as ONNX files, checked against what they were made of, and on the Hugging Face Hub with a card."""

from boxel.exporting.hub import Push, push_to_hub
from boxel.exporting.onnx import export

__all__ = ["Push", "export", "push_to_hub"]
