"""Losses as functions of tensors, each usable in anybody's model.

BoxInst's loss (Eq. 6 and 8) of two masks at a quarter of the image's resolution:

>>> import torch
>>> from boxel.losses import affinity_loss, color_similarity, projection_loss
>>> from boxel.masks.spans import box_spans
>>> images = torch.rand(1, 3, 64, 96)
>>> boxes = torch.tensor([[8.0, 4.0, 40.0, 60.0], [50.0, 20.0, 90.0, 44.0]])
>>> logits = torch.randn(2, 16, 24, requires_grad=True)
>>> rows, columns = box_spans(boxes, height=16, width=24, stride=4)
>>> edges = color_similarity(images, stride=4, theta=2.0) >= 0.3
>>> image_index = torch.tensor([0, 0])
>>> pairwise = affinity_loss(logits, edges, image_index, rows, columns)
>>> loss = projection_loss(logits, rows, columns).mean() + pairwise
>>> loss.backward()
"""

import lazy_loader as _lazy

__getattr__, __dir__, __all__ = _lazy.attach_stub(__name__, __file__)
