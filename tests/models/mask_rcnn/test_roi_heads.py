"""The two stages against torchvision's own, and crowds, which are neither object nor background."""

from typing import Any

import pytest
import torch
from torch import Tensor
from torchvision.models.detection import roi_heads, rpn
from torchvision.models.detection.image_list import ImageList
from torchvision.ops import box_iou

from boxel.models.mask_rcnn import MaskRCNNConfig
from boxel.models.mask_rcnn.criterion import mask_losses
from boxel.models.mask_rcnn.roi_heads import RoIHeads
from boxel.models.mask_rcnn.rpn import RegionProposalNetwork
from boxel.models.mask_rcnn.targets import GRID, grid_windows, in_crowd

SIZES = [(96, 128), (90, 100)]
NONE = torch.zeros(0, 4)


def config(**options: Any) -> MaskRCNNConfig:
    small = {"neck_channels": 8, "box_channels": 16, "mask_channels": 8, "mask_convs": 1, "box_samples": 64}
    return MaskRCNNConfig(**{**small, "anchor_size": 16.0, "proposals": 50, **options})


def build(kind: Any, *arguments: Any) -> Any:
    torch.manual_seed(0)
    module = kind(*arguments)
    for parameter in module.parameters():
        torch.nn.init.normal_(parameter, std=0.2)  # so that much is found
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
    """Some near the objects, some anywhere."""
    return [
        torch.cat([target["boxes"] + shift for shift in (-2.0, 1.0, 2.5)] + [boxes(60, 7 + i, size)])
        for i, (target, size) in enumerate(zip(targets(), SIZES, strict=True))
    ]


def test_losses_equal_torchvision():
    """Same samples, same values to 1e-6: of the box head, and of the mask head where all have masks."""
    for kind in ("none", "mil"):
        settings = config(mask_loss=kind)
        heads = build(RoIHeads, 2, settings)
        torch.manual_seed(3)
        _, theirs = roi_heads.RoIHeads.forward(heads, features(), proposals(), SIZES, targets())
        torch.manual_seed(3)
        ours, logits, lessons = heads.losses(features(), proposals(), SIZES, targets())
        ours |= mask_losses(logits, lessons, torch.zeros(2, 3, 96, 128), SIZES, settings)
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


def test_proposals_without_a_mask_skip_the_mask_head_unless_boxes_teach():
    some = targets()
    for target in some:
        target["has_mask"] = torch.tensor([True, False] * 3)
    counts = {}
    for kind in ("none", "projection"):
        heads = build(RoIHeads, 2, config(mask_loss=kind))
        torch.manual_seed(3)
        _, logits, lessons = heads.losses(features(), proposals(), SIZES, some)
        counts[kind] = (len(logits), int(lessons.has_mask.sum()))
        # Each is taught by the object it overlaps.
        for roi, box, image in zip(lessons.rois, lessons.boxes, lessons.image_index, strict=True):
            iou = box_iou(roi[None], some[image]["boxes"])[0]
            assert torch.equal(some[image]["boxes"][iou.argmax()], box)
    assert counts["none"] == (counts["projection"][1],) * 2
    assert counts["projection"][0] > counts["projection"][1] > 0


CROWD = torch.tensor([[50.0, 0.0, 128.0, 96.0]])


def test_proposals_in_a_crowd_are_not_background():
    heads = build(RoIHeads, 2, config(box_samples=10_000))
    taught = targets()
    taught[0]["crowds"] = CROWD
    given = proposals()
    drawn, _, labels, _ = heads.select_training_samples([own.clone() for own in given], taught)
    inside = in_crowd(drawn[0], CROWD)
    objects = box_iou(drawn[0], taught[0]["boxes"]).amax(1) >= 0.5
    assert (labels[0][inside] > 0).all() and (inside & objects).any()
    assert not (inside & ~objects).any()
    assert (labels[0] == 0).any()
    # All that is outside, and the other image, are as ever: each proposal and each object's own box.
    assert (~inside).sum() == (~in_crowd(torch.cat([given[0], taught[0]["boxes"]]), CROWD)).sum()
    assert len(drawn[1]) == len(given[1]) + 6


def test_nothing_but_crowds():
    """No sample is left: losses of 0 that reach every weight, not a mean of nothing."""
    heads = build(RoIHeads, 2, config())
    empty = {name: value[:0] for name, value in targets()[0].items()}
    everywhere = [empty | {"crowds": torch.tensor([[0.0, 0, 200, 200]])}] * 2
    losses, logits, lessons = heads.losses(features(), proposals(), SIZES, everywhere)
    assert [loss.item() for loss in losses.values()] == [0, 0]
    assert len(logits) == len(lessons.rois) == 0
    (sum(losses.values()) + logits.sum()).backward()
    assert all(p.grad is not None and not p.grad.any() for p in heads.parameters())


def test_anchors_in_a_crowd_are_not_background():
    network = build(RegionProposalNetwork, config())
    images = ImageList(torch.zeros(2, 3, 96, 128), SIZES)
    anchors = network.anchor_generator(images, list(features().values()))
    taught = targets()
    plain, _ = rpn.RegionProposalNetwork.assign_targets_to_anchors(network, anchors, taught)
    taught[0]["crowds"] = CROWD
    labels, _ = network.assign_targets_to_anchors(anchors, taught)
    inside = in_crowd(anchors[0], CROWD)
    assert torch.equal(labels[0], plain[0].where(~inside | (plain[0] != 0), -1.0))
    assert (labels[0] == 1).sum() == (plain[0] == 1).sum() > 0
    assert torch.equal(labels[1], plain[1])


def test_proposals_are_torchvisions():
    network = build(RegionProposalNetwork, config()).eval()
    images = ImageList(torch.zeros(2, 3, 96, 128), SIZES)
    found, _ = network(images, features())
    assert [len(own) for own in found] == [50, 50]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        half, _ = network(images, features())
    assert half[0].dtype == torch.float32
    assert (half[0] != half[0].bfloat16().float()).any()  # not rounded to eight bits


def test_cells_of_the_smallest_image_in_the_widest_padding():
    """The scale of a level is its stride's, whatever the first image's size would suggest."""
    heads = build(RoIHeads, 2, config()).eval()
    roi = [torch.tensor([[2.0, 3.0, 14.0, 15.0]])] * 2
    first = heads.mask_roi_pool(features(), roi, [(16, 16), (16, 16)])
    assert torch.equal(first, heads.mask_roi_pool(features(), roi, SIZES))
    assert first.shape[-1] * 2 == GRID
