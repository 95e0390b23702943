"""The heads against torchvision's own; crowds, which are neither object nor background; cells and spans by hand."""

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torchvision.models.detection import roi_heads, rpn
from torchvision.models.detection.image_list import ImageList
from torchvision.models.detection.roi_heads import project_masks_on_boxes
from torchvision.ops import box_iou
from torchvision.ops.poolers import LevelMapper

from boxel.masks.paste import paste_windows
from boxel.masks.rle import encode
from boxel.masks.spans import box_spans
from boxel.models.mask_rcnn import MaskRCNNConfig
from boxel.models.mask_rcnn.heads import (
    GRID,
    RegionProposalNetwork,
    RoIHeads,
    grid_windows,
    in_crowd,
    spans_in,
)
from boxel.models.mask_rcnn.losses import mask_losses

SIZES = [(96, 128), (90, 100)]
NONE = torch.zeros(0, 4)


def config(**options: Any) -> MaskRCNNConfig:
    small = {"neck_channels": 8, "box_channels": 16, "mask_channels": 8, "mask_convs": 1, "box_samples": 64}
    return MaskRCNNConfig(**{**small, "level_scale": 0.5, "proposals": 50, **options})


def build(kind: Any, *arguments: Any) -> Any:
    torch.manual_seed(0)
    module = kind(*arguments)
    for parameter in module.parameters():
        torch.nn.init.normal_(parameter, std=0.2)  # so that there are many detections
    return module


def features() -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(1)
    names = {"0": 4, "1": 8, "2": 16, "3": 32, "pool": 64}
    return {
        name: torch.randn(2, 8, -(-96 // stride), 128 // stride, generator=generator)
        for name, stride in names.items()
    }


def boxes(count: int, seed: int, size: tuple[int, int]) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    corners = torch.rand(count, 2, generator=generator) * torch.tensor([size[1] - 40.0, size[0] - 40.0])
    return torch.cat([corners, corners + 10 + 30 * torch.rand(count, 2, generator=generator)], 1)


def targets(has_mask: bool = True) -> list[dict[str, Tensor]]:
    """Objects of two classes, their masks the left halves of their boxes."""
    made = []
    for seed, size in enumerate(SIZES):
        own = boxes(6, seed, size)
        x = torch.arange(size[1])
        masks = ((x >= own[:, :1]) & (x < own[:, [0, 2]].mean(1, keepdim=True)))[:, None]
        made.append(
            {
                "boxes": own,
                "labels": torch.tensor([1, 2, 1, 2, 1, 2]),
                "masks": masks.expand(6, *size).to(torch.uint8),
                "has_mask": torch.full((6,), has_mask),
                "weights": torch.ones(6),
                "crowds": NONE,
            }
        )
    return made


def proposals() -> list[Tensor]:
    """Some near the objects, some elsewhere."""
    return [
        torch.cat([target["boxes"] + shift for shift in (-2.0, 1.0, 2.5)] + [boxes(60, 7 + i, size)])
        for i, (target, size) in enumerate(zip(targets(), SIZES, strict=True))
    ]


def test_losses_equal_torchvision_if_all_instances_have_masks():
    """Same samples, same values to 1e-6."""
    for kind in ("none", "mil"):
        settings = config(mask_loss=kind)
        heads = build(RoIHeads, 2, settings)
        torch.manual_seed(3)
        _, theirs = roi_heads.RoIHeads.forward(heads, features(), proposals(), SIZES, targets())
        torch.manual_seed(3)
        ours, logits, mask_targets = heads.compute_losses(features(), proposals(), SIZES, targets())
        ours |= mask_losses(logits, mask_targets, kind == "mil")
        assert len(logits) > 10 and theirs["loss_mask"] > 0.1
        for name, loss in {"classification": "classifier", "box": "box_reg", "mask": "mask"}.items():
            assert ours[name].item() == pytest.approx(theirs[f"loss_{loss}"].item(), abs=1e-6)


def test_detections_equal_torchvision():
    heads = build(RoIHeads, 2, config(score_threshold=0.4)).eval()
    with torch.no_grad():
        theirs, _ = roi_heads.RoIHeads.forward(heads, features(), proposals(), SIZES)
        ours = heads.detect(features(), proposals(), SIZES)
    for own, other in zip(ours, theirs, strict=True):
        assert len(own.boxes) > 5
        assert torch.equal(own.boxes, other["boxes"]) and torch.equal(own.scores, other["scores"])
        assert torch.equal(own.labels + 1, other["labels"])  # theirs count the background
        torch.testing.assert_close(own.mask_logits.sigmoid(), other["masks"][:, 0])
        assert torch.equal(own.windows, grid_windows(own.boxes))


def test_proposals_without_a_mask_skip_the_mask_head_unless_boxes_are_learned_from():
    some = targets()
    for target in some:
        target["has_mask"] = torch.tensor([True, False] * 3)
    counts = {}
    for kind in ("none", "mil"):
        heads = build(RoIHeads, 2, config(mask_loss=kind))
        torch.manual_seed(3)
        _, logits, mask_targets = heads.compute_losses(features(), proposals(), SIZES, some)
        counts[kind] = (len(logits), int(mask_targets.has_mask.sum()))
        # Each is matched to the object it overlaps.
        for roi, box in zip(mask_targets.rois, mask_targets.gt_boxes, strict=True):
            own = next(target["boxes"] for target in some if (target["boxes"] == box).all(1).any())
            assert torch.equal(own[box_iou(roi[None], own)[0].argmax()], box)
    assert counts["none"] == (counts["mil"][1],) * 2
    assert counts["mil"][0] > counts["mil"][1] > 0


CROWD = torch.tensor([[50.0, 0.0, 128.0, 96.0]])


def test_proposals_in_a_crowd_are_not_background():
    heads = build(RoIHeads, 2, config(box_samples=10_000))
    own_targets = targets()
    own_targets[0]["crowds"] = CROWD
    given = proposals()
    drawn, _, labels, _ = heads.select_training_samples([own.clone() for own in given], own_targets)
    inside = in_crowd(drawn[0], CROWD)
    objects = box_iou(drawn[0], own_targets[0]["boxes"]).amax(1) >= 0.5
    assert (labels[0][inside] > 0).all() and (inside & objects).any()
    assert not (inside & ~objects).any()
    assert (labels[0] == 0).any()
    # Outside, and in the other image, all proposals and all true boxes remain.
    assert (~inside).sum() == (~in_crowd(torch.cat([given[0], own_targets[0]["boxes"]]), CROWD)).sum()
    assert len(drawn[1]) == len(given[1]) + 6


def test_images_with_only_crowds_have_losses_of_zero():
    """No sample remains: losses are 0 with gradients for every weight, not NaN."""
    heads = build(RoIHeads, 2, config())
    empty = {name: value[:0] for name, value in targets()[0].items()}
    everywhere = [empty | {"crowds": torch.tensor([[0.0, 0, 200, 200]])}] * 2
    losses, logits, mask_targets = heads.compute_losses(features(), proposals(), SIZES, everywhere)
    assert [loss.item() for loss in losses.values()] == [0, 0]
    assert len(logits) == len(mask_targets.rois) == 0
    (sum(losses.values()) + logits.sum()).backward()
    assert all(p.grad is not None and not p.grad.any() for p in heads.parameters())


def test_anchors_in_a_crowd_are_not_background():
    network = build(RegionProposalNetwork, config())
    images = ImageList(torch.zeros(2, 3, 96, 128), SIZES)
    anchors = network.anchor_generator(images, list(features().values()))
    own_targets = targets()
    plain, _ = rpn.RegionProposalNetwork.assign_targets_to_anchors(network, anchors, own_targets)
    own_targets[0]["crowds"] = CROWD
    labels, _ = network.assign_targets_to_anchors(anchors, own_targets)
    inside = in_crowd(anchors[0], CROWD)
    assert torch.equal(labels[0], plain[0].where(~inside | (plain[0] != 0), -1.0))
    assert (labels[0] == 1).sum() == (plain[0] == 1).sum() > 0
    assert torch.equal(labels[1], plain[1])


def test_the_number_of_proposals_and_full_precision_under_autocast():
    network = build(RegionProposalNetwork, config()).eval()
    images = ImageList(torch.zeros(2, 3, 96, 128), SIZES)
    found, _ = network(images, features())
    assert [len(own) for own in found] == [50, 50]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        half, _ = network(images, features())
    assert half[0].dtype == torch.float32
    assert (half[0] != half[0].bfloat16().float()).any()  # not rounded to eight bits


def test_the_scale_of_a_level_is_independent_of_the_first_image():
    heads = build(RoIHeads, 2, config()).eval()
    roi = [torch.tensor([[2.0, 3.0, 14.0, 15.0]])] * 2
    first = heads.mask_roi_pool(features(), roi, [(16, 16), (16, 16)])
    assert torch.equal(first, heads.mask_roi_pool(features(), roi, SIZES))
    assert first.shape[-1] * 2 == GRID


# ---------------------------------------------------------------------------------------------------------------------
# torchvision's private helpers


def test_torchvision_still_has_the_private_helpers_that_the_heads_use():
    """Renamed or changed in a release, they would break the heads; see the docstring of `mask_rcnn/heads.py`."""
    logits, deltas = torch.zeros(2, 3), torch.zeros(2, 12)
    classification, box = roi_heads.fastrcnn_loss(logits, deltas, [torch.tensor([0, 2])], [torch.zeros(2, 4)])
    assert classification.item() == pytest.approx(np.log(3)) and box == 0
    masks = roi_heads.project_masks_on_boxes(
        torch.ones(1, 8, 8), torch.tensor([[0.0, 0, 8, 8]]), torch.tensor([0]), 4
    )
    assert masks.shape == (1, 4, 4)
    assert LevelMapper(2, 5)([torch.tensor([[0.0, 0, 224, 224]])]).tolist() == [2]


# ---------------------------------------------------------------------------------------------------------------------
# Cells, spans and crowds


def box_rows(*rows: list[float]) -> Tensor:
    return torch.tensor(rows, dtype=torch.float32)


def at(*ranges: tuple[int, int]) -> Tensor:
    """(N, GRID) bool, true from each start to before its end."""
    index = torch.arange(GRID)
    return torch.stack([(index >= start) & (index < end) for start, end in ranges])


@pytest.mark.parametrize(
    ("crowds", "inside"),
    [
        ([[5.0, 0, 20, 10]], False),  # half of it
        ([[4.9, 0, 20, 10]], True),
        ([[0.0, 0, 4, 10], [6, 0, 10, 10]], False),  # neither crowd alone
        ([[20.0, 0, 30, 10]], False),
        ([], False),
    ],
)
def test_a_box_is_in_a_crowd_that_covers_more_than_half_of_it(crowds, inside):
    crowds = torch.tensor(crowds).reshape(-1, 4)
    assert in_crowd(box_rows([0, 0, 10, 10]), crowds).tolist() == [inside]
    assert in_crowd(torch.zeros(0, 4), crowds).shape == (0,)


def test_cells_are_where_torchvision_samples_masks():
    """Masks whose values are the coordinates of pixel centers: x in the first, y in the second."""
    x, y = torch.arange(80) + 0.5, torch.arange(60) + 0.5
    masks = torch.stack([x.expand(60, 80), y[:, None].expand(60, 80)])
    rois = box_rows([4, 6, 32, 48], [10.3, 5.5, 60.1, 40.2])
    windows = grid_windows(rois)
    middles = (torch.arange(GRID) + 0.5) / GRID
    for axis in (0, 1):
        sampled = project_masks_on_boxes(masks, rois, torch.full((2,), axis), GRID)
        start, end = windows[:, axis], windows[:, axis + 2]
        expected = start[:, None] + (end - start)[:, None] * middles
        along = sampled.mean(1) if axis == 0 else sampled.mean(2)
        torch.testing.assert_close(along, expected)


def test_a_mask_survives_sampling_and_pasting():
    mask = torch.zeros(1, 40, 50)
    mask[0, 10:25, 13:30] = 1
    rois = box_rows([9, 7, 37, 35])
    cells = project_masks_on_boxes(mask, rois, torch.tensor([0]), GRID)
    (rle,) = paste_windows(cells - 0.5, rois, grid_windows(rois), (40, 50))
    assert rle == encode(mask[0].numpy())


def test_spans_match_hand_computed_values():
    """Cells of 1 x 2 pixels: middles at 10.5, 11.5, ... across and at 21, 23, ... down."""
    window = box_rows([10, 20, 38, 76])
    rows, columns = spans_in(window, box_rows([12, 30, 20, 39]))
    assert torch.equal(columns, at((2, 10)))
    assert torch.equal(rows, at((5, 9)))  # 31 to 37; 39 is the end, and not in the box
    rows, columns = spans_in(window, box_rows([0, 0, 99, 22]))  # reaches out on three sides
    assert columns.all() and torch.equal(rows, at((0, 1)))
    rows, columns = spans_in(window, box_rows([12.6, 30, 12.9, 90]))  # no middle: the cell it lies in
    assert torch.equal(columns, at((2, 3))) and torch.equal(rows, at((5, 28)))


def test_spans_equal_those_of_a_grid_over_the_image():
    generator = torch.Generator().manual_seed(0)
    corners = torch.rand(50, 2, 2, generator=generator) * 112
    drawn = torch.cat([corners.amin(1), corners.amax(1)], 1)
    windows = box_rows([0, 0, 112, 112]).expand(50, 4)
    for ours, theirs in zip(spans_in(windows, drawn), box_spans(drawn, GRID, GRID, 4), strict=True):
        assert torch.equal(ours, theirs)
