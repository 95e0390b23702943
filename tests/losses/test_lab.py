"""CIELAB against scikit-image."""

import numpy as np
import torch
from skimage.color import rgb2lab

from boxel.losses.lab import rgb_to_lab


def test_equals_scikit_image():
    levels = np.linspace(0, 1, 18)  # 0 to 1, through both branches of both curves
    colors = np.stack(np.meshgrid(levels, levels, levels), -1).reshape(1, -1, 18, 3)
    ours = rgb_to_lab(torch.from_numpy(colors).permute(0, 3, 1, 2).float())
    np.testing.assert_allclose(ours[0].permute(1, 2, 0), rgb2lab(colors[0]), atol=1e-4)


def test_known_colors():
    colors = torch.tensor([[0.0, 0, 0], [1, 1, 1], [1, 0, 0]]).T[None, :, :, None]
    lab = rgb_to_lab(colors)[0, :, :, 0].T
    expected = torch.tensor([[0.0, 0, 0], [100, 0, 0], [53.24, 80.09, 67.20]])
    torch.testing.assert_close(lab, expected, atol=0.01, rtol=0)
