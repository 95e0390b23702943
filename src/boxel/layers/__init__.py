"""Building blocks that models share: backbones, feature pyramids, normalisation, deformable convolution."""
