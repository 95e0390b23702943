"""The regression targets of the localization network, and instances found with it."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from boxel.masks.rle import decode_all
from boxel.models.detector import paste_masks
from boxel.models.fcrn import FCRNInstances, FCRNInstancesConfig
from boxel.models.fcrn.config import VotingConfig
from boxel.models.fcrn.instances import OFFSET_SCALE, from_offsets, sample_cells, to_offsets
from boxel.models.semantic import SemanticConfig

TINY = {"backbone": "resnet10t", "weights": "none", "backbone_norm": "bn", "frozen_stages": 0, "kernel": 3}


def build(classes: int = 2, **options) -> FCRNInstances:
    torch.manual_seed(0)
    semantic = SemanticConfig(**TINY, output_stride=options.pop("semantic_stride", 8))
    return FCRNInstances(classes, FCRNInstancesConfig(**TINY, semantic=semantic, **options))


def test_offsets_match_hand_computed_values() -> None:
    """Cells of 8 pixels have their centers at 4, 12, 20; the box (2, 10, 22, 50) its own at (12, 30)."""
    boxes = torch.tensor([2.0, 10.0, 22.0, 50.0])[:, None, None].expand(4, 2, 3)
    down, right, height, width = to_offsets(boxes, 8)
    assert down.tolist() == [[26, 26, 26], [18, 18, 18]]
    assert right.tolist() == [[8, 0, -8]] * 2
    assert (height == 40).all() and (width == 20).all()


@given(st.integers(0, 10**6), st.sampled_from([8, 16]))
def test_offsets_are_inverted_to_their_boxes(seed, stride) -> None:
    boxes = torch.rand(3, 4, 5, 6, generator=torch.Generator().manual_seed(seed)) * 400
    torch.testing.assert_close(from_offsets(to_offsets(boxes, stride), stride), boxes, atol=1e-3, rtol=0)


def targets() -> list[dict[str, torch.Tensor]]:
    """An image with two touching squares of two classes, and an empty one."""
    instances = torch.full((64, 64), -1, dtype=torch.int16)
    instances[16:48, 0:32], instances[16:48, 32:64] = 0, 1
    boxes = torch.tensor([[0.0, 16, 32, 48], [32.0, 16, 64, 48]])
    return [
        {"instances": instances, "boxes": boxes, "instance_labels": torch.tensor([1, 2])},
        {
            "instances": torch.full_like(instances, -1),
            "boxes": torch.zeros(0, 4),
            "instance_labels": torch.zeros(0, dtype=torch.long),
        },
    ]


class _Constant(torch.nn.Module):
    """A network that predicts the same for every image."""

    def __init__(self, scores: torch.Tensor):
        super().__init__()
        self.stride, self.padding_color, self.scores = 8, torch.zeros(3, 1, 1), scores

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.scores.expand(len(images), *self.scores.shape[-3:])


def perfect(model: FCRNInstances) -> torch.Tensor:
    """(1, 4 K, 8, 8), the true boxes of the squares in every class's channels."""
    boxes = torch.zeros(4, 8, 8)
    boxes[:, :, :4], boxes[:, :, 4:] = (b[:, None, None] for b in targets()[0]["boxes"])
    return (to_offsets(boxes, 8) / OFFSET_SCALE).repeat(model.num_classes, 1, 1)[None]


@pytest.mark.parametrize("min_kept", [None, 4])
def test_the_loss_is_that_of_the_true_class_only(min_kept) -> None:
    model = build(min_kept=min_kept)
    images = [torch.rand(3, 64, 64)] * 2
    found = perfect(model).repeat(2, 1, 1, 1)
    # Predictions for other classes and on the background have no loss.
    found[:, 4:, :, :4] += 100
    found[:, :, :2] += 100
    model.network = _Constant(found)
    assert model.train()(images, targets())["localization"] == 0
    found[0, 0, 2, 0] += 1  # a row of the first square, down by a unit
    loss = model.train()(images, targets())["localization"]
    assert loss == pytest.approx(0.5 / (32 if min_kept is None else 4))


def test_the_loss_turns_linear_at_32_pixels() -> None:
    """One of the 32 cells has a box that is 16 pixels too high, another one that is 64 pixels too wide."""
    model = build(min_kept=None)
    found = perfect(model) * OFFSET_SCALE
    found[0, 2, 2, 0] += 16
    found[0, 3, 3, 1] += 64
    model.network = _Constant(found / 32)
    loss = model.train()([torch.rand(3, 64, 64)] * 2, targets())["localization"]
    # Both cells count alike: 0.5 (16 / 32)^2, and 64 / 32 - 0.5.
    assert loss.item() == pytest.approx((0.125 + 1.5) / 32)


def test_only_the_localization_network_learns() -> None:
    model = build().train()
    assert not model.semantic.training and model.network.training
    model([torch.rand(3, 64, 64)] * 2, targets())["localization"].backward()
    assert all(p.grad is None for p in model.semantic.parameters())
    assert all(p.grad is not None for p in model.network.classifier.parameters())


def test_two_touching_squares_of_a_class_are_two_instances() -> None:
    """The votes separate what the semantic network cannot; with true classes, the masks are exact."""
    model = build().eval()
    model.network = _Constant(perfect(model))
    classes = torch.zeros(3, 8, 8)
    classes[0], classes[0, 2:6], classes[2, 2:6] = 1, 0, 1  # both of the second class
    (found,) = model.detect([torch.rand(3, 64, 64)], [classes])
    order = found.boxes[:, 0].argsort()
    assert found.boxes[order].tolist() == targets()[0]["boxes"].tolist()
    assert found.labels.tolist() == [1, 1] and found.scores.tolist() == [1, 1]
    inside = found.mask_logits[order] > 0
    assert (
        inside[0, 2:6, :4].all()
        and inside[0].sum() == 16
        and inside[1, 2:6, 4:].all()
        and inside[1].sum() == 16
    )


def test_true_classes_are_those_at_the_centers_of_cells() -> None:
    """The third of 20 x 20 pixels' cells is centered on the border, at 20; the class begins at 11 of 20."""
    classes = torch.zeros(1, 20, 20)
    classes[0, :, 11:] = 1
    assert sample_cells(classes, (20, 20), 8).tolist() == [[[0, 1, 1]] * 3]
    assert sample_cells(classes, (40, 40), 8).tolist() == [[[0, 0, 0, 1, 1]] * 5]  # at 2, 6, 10, 14 and 18


def test_a_mask_is_all_of_its_group_even_outside_its_box() -> None:
    """The boxes of the first square are predicted 8 pixels, one cell, too narrow on the left."""
    model = build().eval()
    narrow = perfect(model) * OFFSET_SCALE
    narrow[:, 1::4, :, :4] += 4
    narrow[:, 3::4, :, :4] -= 8
    model.network = _Constant(narrow / OFFSET_SCALE)
    classes = torch.zeros(3, 64, 64)
    classes[0], classes[0, 16:48, :32], classes[2, 16:48, :32] = 1, 0, 1
    detections = model.detect([torch.rand(3, 64, 64)], [classes])
    assert detections[0].boxes.tolist() == [[8, 16, 32, 48]]
    (found,) = paste_masks(detections, [torch.rand(3, 64, 64)])
    (mask,) = decode_all(found["masks"], 64, 64)
    assert mask[20:44, :28].all()
    assert not mask[:16].any() and not mask[48:].any() and not mask[:, 32:].any()


def test_mask_edges_are_where_the_classes_meet() -> None:
    """The class leads by 0.8 in the mask and trails by 0.2 beside it: the edge is at 4/5 between them."""
    model = build().eval()
    model.network = _Constant(perfect(model))
    classes = torch.zeros(3, 8, 8)
    classes[0], classes[2] = 0.6, 0.4
    classes[0, 2:6, :4], classes[2, 2:6, :4] = 0.1, 0.9
    (found,) = model.detect([torch.rand(3, 64, 64)], [classes])
    best = found.mask_logits[found.scores.argmax()]
    assert best[3].tolist() == pytest.approx([0.8] * 4 + [-0.2] * 4)


def test_images_of_any_size_and_networks_with_two_strides() -> None:
    model = build(semantic_stride=16, voting=VotingConfig(min_score=0.0, top_n=3, min_cells=1)).eval()
    sizes = [(50, 70), (64, 40)]
    model.network = _Constant(
        perfect(model).repeat(1, 1, 1, 2)[..., :10]
    )  # 64 x 80 pixels, to which both are padded
    for (height, width), found in zip(sizes, model([torch.rand(3, *size) for size in sizes]), strict=True):
        boxes = found["boxes"]
        assert len(boxes) and (boxes >= 0).all()
        assert (boxes[:, [0, 2]] <= width).all() and (boxes[:, [1, 3]] <= height).all()
        assert all(mask["size"] == [height, width] for mask in found["masks"])
