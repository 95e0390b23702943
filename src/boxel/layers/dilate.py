"""Dilation instead of striding for plain networks, which timm builds at stride 32 only."""

from __future__ import annotations

from typing import Any, cast

from torch import nn


def dilate(network: Any, output_stride: int) -> None:
    """Limit the stride of a plain network, in place: the à trous algorithm.

    Each max pooling that would exceed the stride keeps the size of its map, and the convolutions after it are dilated
    accordingly: at every second cell they compute the same as before, up to the window of the poolings. That window
    becomes 3x3 instead of 2x2, because an even one cannot be centered on a cell; it is not dilated, as in DeepLab. The
    network is a VGG of timm, built with `features_only`. Its weights stay; its `feature_info` gets the new strides.

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
