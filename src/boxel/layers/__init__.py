"""Building blocks that models share: backbones, feature pyramids, normalization, deformable convolution."""
