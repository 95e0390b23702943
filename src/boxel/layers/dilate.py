"""Dilation in place of striding for plain networks, which timm builds at stride 32 only."""

from __future__ import annotations

from typing import Any, cast

from torch import nn


def dilate(network: Any, output_stride: int) -> None:
    """Keep the maps of a plain network at a stride, in place: the à trous algorithm.

    Each max pooling that would go beyond the stride stays on its map, and the convolutions after it look that much
    further apart: what they give at every second cell is what they gave before, up to the window of the poolings. That
    is 3x3 in place of 2x2 then, since an even window can't be centerd on a cell, and is not dilated, as in DeepLab.

    Args:
        network: a VGG of timm, with or without batch norm, built with `features_only`; its weights stay, and its
            `feature_info` becomes that of the new strides.
        output_stride: pixels to a cell of the last map; 32 changes nothing.

    References:
        Chen et al., Semantic Image Segmentation with Deep Convolutional Nets and Fully Connected CRFs, ICLR 2015,
        Section 3.1.
    """
    stride = dilation = 1
    for layer in network.children():
        if isinstance(layer, nn.Conv2d):
            layer.dilation = (dilation, dilation)
            layer.padding = (dilation * int(layer.padding[0]), dilation * int(layer.padding[1]))
        elif isinstance(layer, nn.MaxPool2d) and stride < output_stride:
            stride *= cast(int, layer.stride)
        elif isinstance(layer, nn.MaxPool2d):
            dilation *= cast(int, layer.stride)
            layer.kernel_size, layer.stride, layer.padding = 3, 1, 1
    for feature in network.feature_info.info:
        feature["reduction"] = min(feature["reduction"], output_stride)
