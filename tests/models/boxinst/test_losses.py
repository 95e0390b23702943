"""Detection losses against torchvision's FCOS and by hand; mask losses by hand and per option."""

import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor
from torchvision.models.detection.fcos import FCOSHead
from torchvision.ops import generalized_box_iou, sigmoid_focal_loss

from boxel.losses.affinity import affinity_loss, color_similarity, supervised_affinity_loss
from boxel.losses.area import area_loss
from boxel.losses.projection import projection_loss
from boxel.masks.spans import box_spans
from boxel.models.boxinst import BoxInstConfig
from boxel.models.boxinst.heads import HeadOutput
from boxel.models.boxinst.losses import _FocalLoss, detection_losses, mask_losses
from boxel.models.boxinst.matching import cell_centers, centerness, side_distances

LN2 = math.log(2)


# ---------------------------------------------------------------------------------------------------------------------
# Detection


def detection_case(seed: int = 0) -> tuple[HeadOutput, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Two images of 4 x 4 locations, 3 classes; boxes around some of the locations."""
    generator = torch.Generator().manual_seed(seed)
    points = cell_centers(4, 4, 8)
    output = HeadOutput(
        torch.randn(2, 16, 3, generator=generator),
        torch.rand(2, 16, 4, generator=generator) * 20,
        torch.randn(2, 16, generator=generator),
        [],
    )
    matched = torch.full((2, 16), -1)
    matched[0, [5, 6]] = 0
    matched[1, [0, 10, 11]] = torch.tensor([1, 2, 2])
    all_boxes = torch.tensor([[2.0, 3, 30, 20], [0, 1, 12, 9], [10, 14, 32, 31]])
    all_labels = torch.tensor([2, 0, 1])
    positive = matched >= 0
    owner = matched[positive]
    return output, points, all_boxes[owner], all_labels[owner], positive, torch.zeros(2, 16, dtype=torch.bool)


def test_classification_and_centerness_equal_torchvision():
    output, points, boxes, labels, positive, ignored = detection_case()
    losses = detection_losses(output, points, boxes, labels, positive, ignored)
    head = FCOSHead(32, 1, 3, 1)
    anchors = torch.cat([points - 4, points + 4], 1)
    targets, matched = [], []
    for image in range(2):
        own = positive[image]
        index = torch.full((16,), -1)
        index[own] = torch.arange(int(own.sum()))
        matched.append(index)
        rows = positive.nonzero()[:, 0] == image
        targets.append({"boxes": boxes[rows], "labels": labels[rows]})
    theirs = head.compute_loss(
        targets,
        {
            "cls_logits": output.logits,
            "bbox_regression": output.distances / 8,
            "bbox_ctrness": output.centerness[..., None],
        },
        [anchors, anchors],
        matched,
    )
    torch.testing.assert_close(losses["classification"], theirs["classification"])
    torch.testing.assert_close(losses["centerness"], theirs["bbox_ctrness"])


def test_box_loss_is_giou_weighted_by_centerness():
    output, points, boxes, labels, positive, ignored = detection_case()
    here, sides = points.repeat(2, 1)[positive.flatten()], output.distances[positive]
    predicted = torch.cat([here - sides[:, :2], here + sides[:, 2:]], 1)
    weight = centerness(side_distances(here, boxes))
    expected = ((1 - generalized_box_iou(predicted, boxes).diag()) * weight).sum() / weight.sum()
    losses = detection_losses(output, points, boxes, labels, positive, ignored)
    torch.testing.assert_close(losses["box"], expected)


def test_detection_losses_match_hand_computed_values():
    """One location in the middle of its box: center-ness 1; it predicts half the box (IoU and GIoU 1/2)."""
    output = HeadOutput(
        torch.zeros(1, 1, 1), torch.tensor([[[2.0, 4.0, 2.0, 4.0]]]), torch.tensor([[math.log(3)]]), []
    )
    losses = detection_losses(
        output,
        torch.tensor([[4.0, 4.0]]),
        torch.tensor([[0.0, 0.0, 8.0, 8.0]]),
        torch.tensor([0]),
        torch.tensor([[True]]),
        torch.tensor([[False]]),
    )
    assert losses["box"].item() == pytest.approx(0.5, abs=1e-5)
    assert losses["centerness"].item() == pytest.approx(math.log(4 / 3))  # probability 3/4 of a 1
    assert losses["classification"].item() == pytest.approx(0.25 * 0.5**2 * LN2)


def test_ignored_locations_have_no_classification_loss():
    output, points, boxes, labels, positive, ignored = detection_case()
    ignored[0, [0, 1, 15]] = True
    output.logits.requires_grad_()
    detection_losses(output, points, boxes, labels, positive, ignored)["classification"].backward()
    assert torch.equal((output.logits.grad == 0).all(-1), ignored)


def test_a_batch_without_positives_has_only_a_classification_loss():
    output, points, *_, ignored = detection_case()
    for values in output[:3]:
        values.requires_grad_()
    nobody = torch.zeros(2, 16, dtype=torch.bool)
    empty = torch.zeros(0, dtype=torch.long)
    losses = detection_losses(output, points, torch.zeros(0, 4), empty, nobody, ignored)
    assert losses["box"] == 0
    assert losses["centerness"] == 0
    assert losses["classification"] > 0  # background is learned from, divided by 1
    sum(losses.values()).backward()
    assert all(values.grad is not None for values in output[:3])


def test_normalizers_are_means_over_processes(monkeypatch):
    """The other process has 15 positives and center-ness targets that sum up to 10."""
    case = detection_case()
    alone = detection_losses(*case)
    positives = int(case[4].sum())
    target_sum = centerness(side_distances(case[1].repeat(2, 1)[case[4].flatten()], case[2])).sum()

    others = iter([15.0, 10.0])

    class Two:
        is_available = staticmethod(lambda: True)
        is_initialized = staticmethod(lambda: True)
        get_world_size = staticmethod(lambda: 2)

        @staticmethod
        def all_reduce(values):
            values += next(others)

    monkeypatch.setattr("boxel.losses.processes.dist", Two)
    both = detection_losses(*case)
    for name, own, mean in [
        ("classification", positives, (positives + 15) / 2),
        ("centerness", positives, (positives + 15) / 2),
        ("box", target_sum, (target_sum + 10) / 2),
    ]:
        torch.testing.assert_close(both[name] * mean, alone[name] * own)


# ---------------------------------------------------------------------------------------------------------------------
# Masks

CONFIG = BoxInstConfig()
GRAY = torch.full((1, 3, 16, 16), 0.5)
VALID = torch.ones(1, 16, 16, dtype=torch.bool)
BOX = torch.tensor([[0.0, 0.0, 8.0, 8.0]])  # rows and columns 0 and 1 of 4


def saturated(mask: Tensor) -> Tensor:
    """Logits of a certain prediction."""
    return torch.where(mask.bool(), 40.0, -40.0)


def cells(*filled: tuple[int, int]) -> Tensor:
    """(4, 4) bool mask."""
    mask = torch.zeros(4, 4, dtype=torch.bool)
    for y, x in filled:
        mask[y, x] = True
    return mask


TOP = cells((0, 0), (0, 1))
FULL = cells((0, 0), (0, 1), (1, 0), (1, 1))


def compute_losses(
    logits: Tensor, has_mask: list[bool], truth: Tensor | None = None, **options
) -> dict[str, Tensor]:
    """Losses of instances in the upper left box of one gray image; those with a mask have `truth` in turn."""
    n = len(has_mask)
    masks = torch.zeros(n, 4, 4, dtype=torch.bool)
    if truth is not None:
        masks[torch.tensor(has_mask, dtype=torch.bool)] = truth
    return mask_losses(
        logits,
        BOX.expand(n, 4),
        torch.tensor(has_mask, dtype=torch.bool),
        masks,
        torch.ones(n),
        torch.zeros(n, dtype=torch.long),
        GRAY,
        VALID,
        replace(CONFIG, **options),
    )


def test_projection_loss_matches_hand_computed_values():
    """The upper half of the box: right on x; on y p = (1, 0, 0, 0), t = (1, 1, 0, 0), 1 - 2 / (1 + 2)."""
    assert compute_losses(saturated(TOP)[None], [False])["projection"].item() == pytest.approx(
        1 / 3, abs=1e-4
    )
    assert compute_losses(saturated(FULL)[None], [False])["projection"].item() == pytest.approx(0, abs=1e-4)


def test_dice_loss_matches_hand_computed_values():
    """2 cells of 4 found: 1 - 2 * 2 / (2 + 4)."""
    losses = compute_losses(saturated(TOP)[None], [True], FULL[None])
    assert losses["mask"].item() == pytest.approx(1 / 3, abs=1e-4)
    assert losses["projection"] == losses["affinity"] == 0


def test_affinity_loss_matches_hand_computed_values():
    """Every edge of a gray image is supervised; where nothing is known, -log P(same) is ln 2."""
    assert compute_losses(torch.zeros(1, 4, 4), [False])["affinity"].item() == pytest.approx(LN2)
    assert compute_losses(saturated(cells())[None], [False])["affinity"].item() == pytest.approx(0, abs=1e-6)


def test_losses_of_a_mixed_batch_are_weighted_by_the_share_of_instances():
    """Three instances with a mask, one without: losses of the former times 3/4, of the latter times 1/4."""
    logits = torch.stack([saturated(TOP), saturated(FULL), torch.zeros(4, 4), saturated(TOP)])
    losses = compute_losses(logits, [True, True, False, True], torch.stack([FULL, FULL, FULL]))
    alone = compute_losses(torch.zeros(1, 4, 4), [False])
    assert losses["mask"].item() == pytest.approx((1 / 3 + 0 + 1 / 3) / 4, abs=1e-4)
    torch.testing.assert_close(losses["projection"], alone["projection"] / 4)
    torch.testing.assert_close(losses["affinity"], alone["affinity"] / 4)


def test_each_loss_has_gradients_on_its_own_instances_only():
    """The gradient of the mask loss is on instances with a mask, that of the others on those without."""
    logits = torch.randn(4, 4, 4, requires_grad=True)
    has_mask = torch.tensor([True, False, True, False])
    losses = compute_losses(logits, has_mask.tolist(), torch.stack([FULL, TOP]))
    for name, with_mask in [("mask", True), ("projection", False), ("affinity", False)]:
        (gradient,) = torch.autograd.grad(losses[name], logits, retain_graph=True)
        assert torch.equal(gradient.flatten(1).abs().sum(1) > 0, has_mask == with_mask)


def test_losses_without_instances_are_zero_and_differentiable():
    for kind in ("dice", "affinity"):
        logits = torch.zeros(0, 4, 4, requires_grad=True)
        losses = compute_losses(logits, [], supervised_loss=kind)
        assert [loss.item() for loss in losses.values()] == [0, 0, 0]
        for loss in losses.values():
            (gradient,) = torch.autograd.grad(loss, logits, retain_graph=True)
            assert gradient.shape == logits.shape


def test_half_precision_logits_give_full_precision_losses():
    logits = 3 * torch.randn(2, 4, 4).bfloat16()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        half = compute_losses(logits, [True, False], FULL[None])
    full = compute_losses(logits.float(), [True, False], FULL[None])
    for name, loss in full.items():
        assert half[name].dtype == torch.float32
        assert half[name] == loss


def random_case(seed: int = 0) -> dict[str, Tensor]:
    """Four instances in two images of 64 x 48 whose colors flow into each other; the second is padded."""
    generator = torch.Generator().manual_seed(seed)
    images = torch.rand(2, 3, 5, 4, generator=generator)
    images = 0.4 + 0.1 * torch.nn.functional.interpolate(images, size=(64, 48), mode="bilinear")
    valid = torch.ones(2, 64, 48, dtype=torch.bool)
    valid[1, 40:] = False
    valid[1, :, 32:] = False
    return {
        "logits": 2 * torch.randn(4, 16, 12, generator=generator),
        "gt_boxes": torch.tensor([[5.0, 8, 40, 60], [20, 0, 48, 20], [3, 3, 30, 38], [9, 20, 31, 40]]),
        "has_mask": torch.tensor([False, True, False, True]),
        "masks": torch.rand(4, 16, 12, generator=generator) < 0.4,
        "weights": torch.ones(4),
        "image_index": torch.tensor([0, 0, 1, 1]),
        "images": images,
        "valid": valid,
    }


def boxed_affinity(case: dict[str, Tensor], config: BoxInstConfig) -> Tensor:
    """The affinity loss of the instances without a mask, put together from the paper's parts, times their share."""
    boxed = ~case["has_mask"]
    rows, columns = box_spans(case["gt_boxes"][boxed], 16, 12, 4)
    similarity = color_similarity(case["images"], case["valid"], 4, config.patch_size, config.dilation)
    loss = affinity_loss(
        case["logits"][boxed],
        similarity >= config.tau,
        case["image_index"][boxed],
        rows,
        columns,
        dilation=config.dilation,
        normalizer=config.affinity_normalizer,
        inside=config.affinity_inside,
        existing=similarity >= 0,
    )
    return loss * boxed.float().mean()


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("tau", 0.1),
        ("tau", 0.9),
        ("patch_size", 5),
        ("dilation", 1),
        ("affinity_normalizer", "edges"),
        ("affinity_inside", "either"),
    ],
)
def test_options_of_the_affinity_loss(option, value):
    case = random_case()
    plain = mask_losses(**case, config=CONFIG)
    config = replace(CONFIG, **{option: value})
    losses = mask_losses(**case, config=config)
    torch.testing.assert_close(plain["affinity"], boxed_affinity(case, CONFIG))
    torch.testing.assert_close(losses["affinity"], boxed_affinity(case, config))
    assert (losses["affinity"] - plain["affinity"]).abs() > 1e-3
    assert losses["projection"] == plain["projection"]
    assert losses["mask"] == plain["mask"]


def test_cross_entropy_is_an_option_of_both_projections():
    """Equal logits everywhere, so ln 2 on each axis; Eq. 6 adds the ln 2 of each edge where nothing is known."""
    logits, options = torch.zeros(2, 4, 4), {"projection_loss": "cross-entropy"}
    losses = compute_losses(logits, [True, False], FULL[None], supervised_loss="affinity", **options)
    assert losses["projection"].item() == pytest.approx(2 * LN2 / 2)
    assert losses["mask"].item() == pytest.approx((2 * LN2 + LN2) / 2)


def test_area_loss_is_the_mean_over_boxed_instances():
    case = random_case()
    boxed = ~case["has_mask"]
    rows, columns = box_spans(case["gt_boxes"][boxed], 16, 12, 4)
    losses = mask_losses(**case, config=replace(CONFIG, area_weight=0.1))
    torch.testing.assert_close(losses["area"], area_loss(case["logits"][boxed], rows, columns).sum() / 4)
    plain = mask_losses(**case, config=CONFIG)
    assert "area" not in plain
    assert all(losses[name] == plain[name] for name in plain)


def test_hint_loss_matches_hand_computed_values():
    """Dice toward hints of instances without a mask, by hand: 2 cells of 4 found, 1 - 2 * 2 / (2 + 4); weight 0.5."""
    logits = torch.stack([saturated(TOP), saturated(FULL), saturated(TOP), saturated(TOP)])
    logits.requires_grad_()
    has_mask = torch.tensor([False, True, False, False])
    masks = torch.stack([FULL, TOP, TOP, cells()])  # the last has no hint
    weights, index = torch.tensor([0.5, 1, 1, 1]), torch.zeros(4, dtype=torch.long)
    case = (BOX.expand(4, 4), has_mask, masks, weights, index, GRAY, VALID)
    losses = mask_losses(logits, *case, replace(CONFIG, hint_weight=0.5))
    assert losses["hint"].item() == pytest.approx((0.5 / 3 + 0) / 4, abs=1e-4)
    plain = mask_losses(logits, *case, CONFIG)
    assert "hint" not in plain
    assert all(losses[name] == plain[name] for name in plain)
    logits = torch.zeros(4, 4, 4, requires_grad=True)
    mask_losses(logits, *case, replace(CONFIG, hint_weight=0.5))["hint"].backward()
    assert logits.grad.flatten(1).any(1).tolist() == [True, False, True, False]


@pytest.mark.parametrize(
    ("off", "left"),
    [
        ({"projection_weight": 0.0}, {"affinity", "mask"}),
        ({"affinity_weight": 0.0}, {"projection", "mask"}),
        ({"projection_weight": 0.0, "affinity_weight": 0.0}, {"mask"}),
        ({"projection_weight": 0.5, "affinity_weight": 2.0}, {"projection", "affinity", "mask"}),
    ],
)
def test_a_loss_of_weight_zero_is_omitted(off, left):
    """Other weights are not in the raw losses."""
    case = random_case()
    plain, losses = mask_losses(**case, config=CONFIG), mask_losses(**case, config=replace(CONFIG, **off))
    assert set(losses) == left
    assert all(losses[name] == plain[name] for name in left)


def test_supervised_affinity_loss_matches_hand_computed_values():
    """Eq. 6 with true edges, by hand and put together.

    Where nothing is known: an edge costs ln 2, and a side of a projection 1 - 2 * 1 / (4 / 4 + 2) = 1/3.
    """
    losses = compute_losses(torch.zeros(2, 4, 4), [True, False], FULL[None], supervised_loss="affinity")
    assert losses["mask"].item() == pytest.approx((2 / 3 + LN2) / 2, abs=1e-4)
    sure = compute_losses(saturated(FULL)[None], [True], FULL[None], supervised_loss="affinity")
    assert sure["mask"].item() == pytest.approx(0, abs=1e-4)

    case = random_case()
    known = case["has_mask"]
    rows, columns = box_spans(case["gt_boxes"][known], 16, 12, 4)
    for patch in ({"patch_size": 3, "dilation": 2}, {"patch_size": 5, "dilation": 1}):
        size, dilation = patch["patch_size"], patch["dilation"]
        existing = color_similarity(case["images"], case["valid"], 4, size, dilation) >= 0
        pairwise = supervised_affinity_loss(
            case["logits"][known],
            case["masks"][known],
            rows,
            columns,
            size=size,
            dilation=dilation,
            existing=existing,
            image_index=case["image_index"][known],
        )
        expected = (projection_loss(case["logits"][known], rows, columns).mean() + pairwise) / 2
        losses = mask_losses(**case, config=replace(CONFIG, supervised_loss="affinity", **patch))
        torch.testing.assert_close(losses["mask"], expected)


@pytest.mark.parametrize("tau", [0.0, 0.3])
def test_edges_into_the_padding_have_no_loss(tau):
    """Sure of foreground in the image and of background beside it: only edges across the border would cost."""
    logits = torch.full((1, 8, 8), -40.0)
    logits[:, :4, :4] = 40.0
    valid = torch.zeros(1, 32, 32, dtype=torch.bool)
    valid[:, :16, :16] = True
    arguments = (
        torch.tensor([[0.0, 0.0, 16.0, 16.0]]),
        torch.tensor([False]),
        torch.zeros(1, 8, 8, dtype=torch.bool),
        torch.ones(1),
        torch.tensor([0]),
        torch.full((1, 3, 32, 32), 0.5),
    )
    config = replace(CONFIG, tau=tau)
    assert mask_losses(logits, *arguments, valid, config)["affinity"] < 1e-6
    assert mask_losses(logits, *arguments, torch.ones_like(valid), config)["affinity"] > 1


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"affinity_normalizer": "edges", "affinity_inside": "either"},
        {"affinity_normalizer": "edges"},
        {"supervised_loss": "affinity"},
    ],
)
def test_padding_changes_no_mask_loss(options):
    config = replace(CONFIG, **options)
    case = random_case()
    grow = torch.nn.functional.pad
    padded = case | {
        "logits": grow(case["logits"], (0, 4, 0, 8), value=-60.0),
        "masks": grow(case["masks"], (0, 4, 0, 8)),
        "images": grow(case["images"], (0, 16, 0, 32), value=0.45),
        "valid": grow(case["valid"], (0, 16, 0, 32)),
    }
    plain, more = mask_losses(**case, config=config), mask_losses(**padded, config=config)
    for name, loss in plain.items():
        torch.testing.assert_close(more[name], loss)


def test_focal_loss_is_torchvisions_and_keeps_only_its_gradient():
    logits = torch.linspace(-30, 30, 400).reshape(4, 100)
    target = (torch.arange(400) % 3 == 0).float().reshape(4, 100)
    kept, results = [], []
    for loss in (_FocalLoss.apply, lambda x, y: sigmoid_focal_loss(x, y, alpha=0.25, gamma=2.0)):
        x = logits.clone().requires_grad_()
        count = len(kept)
        with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t) or t, lambda t: t):
            value = loss(x, target)
        results.append((value.detach(), torch.autograd.grad(value.sin().sum(), x)[0], len(kept) - count))
    (ours, our_grad, our_kept), (theirs, their_grad, _) = results
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(our_grad, their_grad, rtol=1e-5, atol=1e-6)
    assert our_kept == 1
