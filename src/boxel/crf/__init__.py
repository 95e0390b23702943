"""Fully connected CRF: labels that agree with the photo's colors."""

from boxel.crf.mean_field import CRFConfig, mean_field

__all__ = ["CRFConfig", "mean_field"]
