"""BoxCaseg as a whole: its heads and what teaches them, what it sees, what it gives, and three scenes learned."""

from dataclasses import replace
from math import log
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from boxel.data.annotations import Annotations
from boxel.data.config import CropConfig
from boxel.data.crops import CropDataset
from boxel.data.synthetic import write_scenes
from boxel.layers.decoder import Concatenate, TopDown, upsample
from boxel.losses.head_mixing import mix_heads
from boxel.models.boxcaseg import BoxCaseg, BoxCasegConfig
from boxel.models.io import load
from boxel.utils.errors import BoxelError, UsageError

SIDE = 64
TABLE_4 = [
    ["weak"],
    ["salient"],
    ["weak", "transferred"],
    ["weak", "salient"],
    ["weak", "salient", "transferred"],
    ["shared"],
]
ALL_LOSSES = {"projection_weight": 1.0, "affinity_weight": 1.0, "hint_weight": 1.0, "dice_weight": 1.0}
# A small network: tests are about what is round it.
SMALL = BoxCasegConfig(
    backbone="mobilenetv3_small_050",
    weights="none",
    backbone_norm="bn",
    neck="top_down",
    neck_channels=8,
    side=SIDE,
)


def build(**options: Any) -> BoxCaseg:
    torch.manual_seed(0)
    return BoxCaseg(replace(SMALL, **options))


def crops(count: int, seed: int = 0) -> Tensor:
    return torch.rand(count, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(seed))


def target(has_mask: bool, hint: bool = False) -> dict[str, Any]:
    """A box that is the crop's middle half, and its upper half as the mask or the hint."""
    span = torch.zeros(SIDE, dtype=torch.bool)
    span[16:48] = True
    mask = torch.zeros(SIDE, SIDE)
    if has_mask or hint:
        mask[16:32, 16:48] = 1
    return {"rows": span, "columns": span, "mask": mask, "has_mask": has_mask}


MIXED = [target(True), target(False), target(True), target(False, hint=True)]


def total(model: BoxCaseg, losses: dict[str, Tensor]) -> Tensor:
    weights = model.loss_weights(0.5)
    return torch.stack([weights[name] * loss for name, loss in losses.items()]).sum()


class Constant(nn.Module):
    """A head whose map is one number everywhere; it counts the crops it sees."""

    def __init__(self, value: float) -> None:
        super().__init__()
        self.value, self.seen = nn.Parameter(torch.tensor(value)), 0

    def forward(self, features: Tensor, *_: Any) -> Tensor:
        self.seen += len(features)
        return self.value.expand(len(features), 1, *features.shape[2:])


def with_maps(model: BoxCaseg, **values: float) -> BoxCaseg:
    """Heads that give these probabilities everywhere."""
    for name, value in values.items():
        model.heads[name] = Constant(log(value / (1 - value)))
    return model


# heads and losses ----------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("heads", TABLE_4, ids="+".join)
def test_each_row_of_table_4_learns_and_answers(heads):
    model = build(heads=heads).train()
    losses = model(list(crops(4)), MIXED)
    from_boxes = {"mil", "smooth"} if heads != ["salient"] else set()
    assert losses.keys() == from_boxes | ({"pixel"} if heads != ["weak"] else set())
    total(model, losses).backward()
    for name, parameter in model.heads.named_parameters():
        assert parameter.grad is not None and parameter.grad.isfinite().all(), name
    assert sum(p.grad.abs().sum() for p in model.backbone.parameters() if p.grad is not None) > 0
    masks, scores = model.eval()([crops(1)[0]], boxes=[torch.tensor([[3.0, 4, 40, 50], [10, 10, 20, 20]])])
    assert masks[0].shape == (2, SIDE, SIDE) and masks[0].dtype == torch.bool
    assert scores[0].shape == (2,) and ((scores[0] >= 0) & (scores[0] <= 1)).all()


@pytest.mark.parametrize("mix", ["probabilities", "logits"])
def test_equation_4_by_hand(mix):
    """MIL of all crops, pixels of those with a mask: lambda is 0 for the others."""
    model = with_maps(build(mix=mix).train(), weak=0.3, salient=0.9, transferred=0.6)
    losses = model(list(crops(4)), MIXED)
    box = (64 * -log(0.3) + 64 * -log(0.7)) / 128  # 32 of 64 rows and of 64 columns
    mask = (48 * -log(0.3) + 80 * -log(0.7)) / 128  # 16 rows and 32 columns
    assert losses["mil"].item() == pytest.approx((box + mask) / 2)
    assert losses["smooth"].item() == 0
    if mix == "probabilities":
        mixed = 0.7 * 0.9 + 0.3 * 0.6
    else:
        logit = 0.7 * log(0.9 / 0.1) + 0.3 * log(0.6 / 0.4)
        mixed = 1 / (1 + np.exp(-logit))
    inside = 16 * 32 / SIDE**2
    pixel = -inside * log(mixed) - (1 - inside) * log(1 - mixed)
    assert losses["pixel"].item() == pytest.approx(pixel / 2)  # two of four crops have it
    assert total(model, losses).item() == pytest.approx((box + mask) / 2 + pixel / 2)


def test_of_one_map_alone_the_pixel_loss_is_its_own():
    """Table 4: alpha is 0 or 1 where one of the two heads is missing."""
    inside = 16 * 32 / SIDE**2
    for heads, values, counts in [
        (["weak", "salient"], {"weak": 0.3, "salient": 0.9}, 0.9),
        (["weak", "transferred"], {"weak": 0.3, "transferred": 0.6}, 0.6),
        (["salient"], {"salient": 0.9}, 0.9),
        (["shared"], {"shared": 0.8}, 0.8),
    ]:
        model = with_maps(build(heads=heads).train(), **values)
        found = model(list(crops(4)), MIXED)["pixel"].item()
        assert found == pytest.approx((-inside * log(counts) - (1 - inside) * log(1 - counts)) / 2)


def test_only_crops_with_a_mask_pass_the_heads_that_learn_from_masks():
    model = with_maps(build().train(), weak=0.5, salient=0.5, transferred=0.5)
    model(list(crops(4)), MIXED)
    assert {name: head.seen for name, head in model.heads.items()} == {
        "weak": 4,
        "salient": 2,
        "transferred": 2,
    }
    model.eval()([crops(1)[0]], boxes=[torch.tensor([[3.0, 4, 40, 50], [10, 10, 20, 20], [0, 0, 64, 64]])])
    assert model.heads["salient"].seen == model.heads["transferred"].seen == 5


def test_the_pixel_loss_knows_nothing_of_boxed_crops():
    """Not even by the statistics of the heads' norms; the backbone's here are of one crop each."""
    found, states = [], []
    for seed in (1, 2):
        model = build(backbone_norm="gn", neck="concat").train()
        shown = crops(4)
        shown[[1, 3]] = crops(2, seed)
        found.append(model(list(shown), MIXED))
        states.append(model.heads.state_dict())
    torch.testing.assert_close(found[0]["pixel"], found[1]["pixel"], rtol=1e-6, atol=0)
    assert not torch.isclose(found[0]["mil"], found[1]["mil"], rtol=1e-6)
    for name in ("salient.1.running_mean", "salient.1.running_var", "transferred.norm.running_mean"):
        torch.testing.assert_close(states[0][name], states[1][name], rtol=1e-5, atol=1e-6)
    assert not torch.allclose(states[0]["weak.1.running_mean"], states[1]["weak.1.running_mean"], atol=1e-4)


def test_the_pixel_loss_stops_at_the_weak_head():
    model = build().train()
    model(list(crops(4)), MIXED)["pixel"].backward()
    assert all(p.grad is None or p.grad.abs().sum() == 0 for p in model.heads["weak"].parameters())
    transferred = dict(model.heads["transferred"].named_parameters())
    for name in ("hidden.rows.0.weight", "hidden.rows.2.weight", "last.rows.0.weight", "last.rows.2.weight"):
        assert transferred[name].grad.abs().sum() > 0
    assert model.heads["salient"][0].weight.grad.abs().sum() > 0
    assert any(p.grad is not None and p.grad.abs().sum() > 0 for p in model.backbone.parameters())


def test_boxes_teach_the_weak_head_alone():
    model = build().train()
    losses = model(list(crops(4)), MIXED)
    (losses["mil"] + losses["smooth"]).backward()
    assert model.heads["weak"][0].weight.grad.abs().sum() > 0
    for name in ("salient", "transferred"):
        assert all(p.grad is None or p.grad.abs().sum() == 0 for p in model.heads[name].parameters())


@pytest.mark.slow
@pytest.mark.parametrize("heads", TABLE_4, ids="+".join)
@pytest.mark.parametrize(
    "targets",
    [[target(False)] * 2, [target(True)] * 2, [target(False, hint=True)] * 2, [target(True), target(False)]],
    ids=["boxes", "masks", "hints", "one of each"],
)
def test_no_batch_gives_nan(heads, targets):
    model = build(heads=heads, **ALL_LOSSES).train()
    losses = model(list(crops(2)), targets)
    assert all(loss.isfinite() for loss in losses.values())
    total(model, losses).backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is None or parameter.grad.isfinite().all(), name
    assert all(value.isfinite().all() for value in model.state_dict().values())
    if not targets[0]["has_mask"] and "pixel" in losses:
        assert losses["pixel"] == 0


def test_weights_of_the_losses_are_the_settings():
    options = {
        "mil_weight": 2.0,
        "smooth_weight": 0.1,
        "pixel_weight": 3.0,
        **ALL_LOSSES,
        "hint_weight": 0.25,
    }
    model = build(**options)
    expected = {"mil": 2, "smooth": 0.1, "projection": 1, "affinity": 1, "hint": 0.25, "pixel": 3}
    assert model.loss_weights(0.0) == model.loss_weights(1.0) == expected


def test_losses_are_in_full_precision():
    model = build(**ALL_LOSSES).train()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        losses = model(list(crops(4)), MIXED)
    assert all(loss.dtype == torch.float32 and loss.isfinite() for loss in losses.values())


# inputs --------------------------------------------------------------------------------------------------------


def test_synchronized_norms_are_those_of_the_whole_network():
    """The neck, the fine level, the weak, the salient and the transferred head, as in the authors' code."""
    for options in ({"neck": "concat"}, {"heads": ["shared"], "neck": "top_down", "fine_channels": 8}):
        model, plain = (build(backbone_norm=norm, **options) for norm in ("sync_bn", "bn"))
        norms = [m for m in model.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
        assert all(isinstance(norm, nn.SyncBatchNorm) for norm in norms)
        assert len(norms) == sum(isinstance(m, nn.BatchNorm2d) for m in plain.modules())
        assert model.state_dict().keys() == plain.state_dict().keys()


def test_necks():
    assert isinstance(build().neck, TopDown) and build().neck.channels == 8
    side_by_side = build(neck="concat")
    assert isinstance(side_by_side.neck, Concatenate)
    assert side_by_side.neck.channels == sum(side_by_side.backbone.channels)
    assert side_by_side.heads["weak"][0].in_channels == side_by_side.neck.channels


def test_head_logits_have_stride_4():
    model = build().eval()
    span = torch.ones(2, SIDE, dtype=torch.bool)
    maps = model.head_logits(crops(2), span, span)
    assert {name: tuple(logits.shape) for name, logits in maps.items()} == {
        name: (2, 16, 16) for name in ("weak", "salient", "transferred")
    }
    expected = mix_heads(maps["salient"], maps["transferred"], 0.7, "logits")
    torch.testing.assert_close(model.predict_logits(crops(2), span, span), expected)


def test_the_fine_level_corrects_the_logits_at_stride_2():
    model = build(heads=["shared"], fine_channels=4).eval()
    span = torch.ones(2, SIDE, dtype=torch.bool)
    plain = build(heads=["shared"]).eval()
    state = {key: value for key, value in model.state_dict().items() if not key.startswith("fine.")}
    plain.load_state_dict(state)
    before = model.predict_logits(crops(2), span, span)
    coarse = upsample(plain.head_logits(crops(2), span, span)["shared"][:, None], (32, 32))[:, 0]
    torch.testing.assert_close(model.head_logits(crops(2), span, span)["shared"], coarse)
    assert model.fine is not None
    torch.nn.init.normal_(model.fine.correction.weight)
    assert (model.predict_logits(crops(2), span, span) - before).abs().max() > 1e-3
    losses = model.train()(list(crops(4)), MIXED)
    total(model, losses).backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in model.fine.correction.parameters())


def test_the_fine_level_needs_a_shared_head():
    with pytest.raises(BoxelError, match="fine_channels"):
        BoxCasegConfig(heads=["weak"], fine_channels=4)


@pytest.mark.parametrize(
    ("heads", "alone"),
    [
        (["weak"], "weak"),
        (["weak", "salient"], "salient"),
        (["weak", "transferred"], "transferred"),
        (["shared"], "shared"),
    ],
)
def test_the_result_is_that_of_the_only_trained_head(heads, alone):
    model = build(heads=heads).eval()
    span = torch.ones(1, SIDE, dtype=torch.bool)
    maps = model.head_logits(crops(1), span, span)
    torch.testing.assert_close(model.predict_logits(crops(1), span, span), maps[alone])


def test_a_pixel_above_the_threshold_has_a_positive_logit():
    model = build(heads=["weak"], threshold=0.4).eval()
    span = torch.ones(1, SIDE, dtype=torch.bool)
    chances = model.head_logits(crops(1), span, span)["weak"].sigmoid()
    torch.testing.assert_close(model.predict_logits(crops(1), span, span) > 0, chances > 0.4)
    with pytest.raises(BoxelError, match="threshold"):
        BoxCasegConfig(threshold=0)


def test_the_box_as_a_channel():
    model = build(box_channel=True).train()
    seen = []
    model.backbone.register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    model(list(crops(4)), MIXED)
    assert seen[0].shape == (4, 4, SIDE, SIDE)
    torch.testing.assert_close(seen[0][:, :3], crops(4))
    expected = -torch.ones(SIDE, SIDE)
    expected[16:48, 16:48] = 1
    assert torch.equal(seen[0][2, 3], expected)
    model.eval()([crops(1)[0]], boxes=[torch.tensor([[3.0, 4, 40, 50]])])
    assert torch.equal(seen[1][:, 3], torch.ones(1, SIDE, SIDE))  # the crop is the box


def test_the_other_boxes_as_a_channel():
    model = build(box_channel=True, neighbor_channel=True).train()
    seen = []
    model.backbone.register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    neighbors = torch.zeros(SIDE, SIDE)
    neighbors[:, 40:] = 0.5
    model(list(crops(4)), [{**one, "neighbors": neighbors} for one in MIXED])
    assert torch.equal(seen[0][2, 4], neighbors)
    boxes = torch.tensor([[0.0, 0, 64, 64], [32, 0, 96, 64]])
    model.eval()([torch.rand(3, 64, 96)], boxes=[boxes])
    right, left = torch.zeros(2, SIDE, SIDE)
    right[:, 32:] = left[:, :32] = 0.5
    assert torch.equal(seen[1][:, 4], torch.stack([right, left]))
    with pytest.raises(BoxelError, match="box_channel"):
        BoxCasegConfig(neighbor_channel=True)


def test_crops_windows_and_spans_of_boxes():
    y, x = np.mgrid[:100, :120]
    image = np.stack([2 * x, 2 * y, np.zeros_like(x)], axis=-1).astype(np.uint8)
    model = build(margin=0.5)
    shown, rows, columns, _, windows = model.extract_crops(
        image, np.array([[20.0, 30, 52, 94], [0, 0, 16, 16]])
    )
    assert windows.tolist() == [[4, -2, 68, 126], [-8, -8, 24, 24]]
    assert shown.shape == (2, 3, SIDE, SIDE) and rows.shape == columns.shape == (2, SIDE)
    assert np.flatnonzero(rows[0]).tolist() == np.flatnonzero(columns[0]).tolist() == list(range(16, 48))
    np.testing.assert_allclose(shown[0, 0, 20] * 255, 2 * (4 + np.arange(SIDE)), atol=0.8)  # 1 pixel a cell
    np.testing.assert_allclose(shown[0, 1, 2:50, 7] * 255, 2 * (2.5 + 2 * np.arange(48)), atol=0.8)
    fill = torch.tensor(model.padding_color) / 255
    assert torch.allclose(fill, model.backbone.mean.flatten(), atol=0.5 / 255)
    assert torch.equal(shown[1, :, :16], fill[:, None, None].expand(3, 16, SIDE))
    nothing = model.extract_crops(image, np.zeros((0, 4)))
    assert [len(part) for part in nothing] == [0, 0, 0, 0, 0]


# outputs -------------------------------------------------------------------------------------------------------


class LeftHalf(nn.Module):
    """A head that predicts the left half of every crop."""

    def forward(self, features: Tensor, *_: Any) -> Tensor:
        batch, _, height, width = features.shape
        sign = torch.ones(width)
        sign[width // 2 :] = -1
        return (log(9) * sign).expand(batch, 1, height, width)


@pytest.fixture
def halving():
    model = build(heads=["shared"]).eval()
    model.heads["shared"] = LeftHalf()
    return model


def test_masks_are_cut_to_their_boxes(halving):
    boxes = torch.tensor([[10.0, 20, 30, 60], [0, 0, 71, 50]])
    image = torch.rand(3, 70, 90)  # not a multiple of 32
    masks, scores = halving([image, image[:, :50, :71]], boxes=[boxes[:1], boxes[1:]])
    expected = torch.zeros(70, 90, dtype=torch.bool)
    expected[20:60, 10:20] = True
    assert torch.equal(masks[0][0], expected)
    assert masks[1].shape == (1, 50, 71)
    assert masks[1][0, :, :35].all() and not masks[1][0, :, 36:].any()
    assert scores[0].tolist() == pytest.approx([0.8], abs=1e-6)  # .9 and .1: 2 x .9 - 1


def test_a_margin_is_not_part_of_the_mask(halving):
    halving.config = replace(halving.config, margin=0.5)
    masks, _ = halving([torch.rand(3, 70, 90)], boxes=[torch.tensor([[10.0, 20, 30, 60]])])
    expected = torch.zeros(70, 90, dtype=torch.bool)
    expected[20:60, 10:20] = True
    assert torch.equal(masks[0][0], expected)


def test_pixels_are_in_a_box_if_their_centers_are(halving):
    halving.heads["shared"] = Constant(5.0)
    boxes = [
        [10.5, 20.6, 30.4, 40.5],
        [-5, -5, 3, 3],
        [80, 60, 200, 200],
        [40, 40, 40.3, 40.3],
        [500, 5, 600, 9],
    ]
    masks, scores = halving([torch.rand(3, 70, 90)], boxes=[torch.tensor(boxes)])
    expected = torch.zeros(5, 70, 90, dtype=torch.bool)
    expected[0, 21:40, 10:30] = True  # 20.5 is not in, nor is 40.5; 10.5 is
    expected[1, :3, :3] = True
    expected[2, 60:, 80:] = True
    assert torch.equal(masks[0], expected)
    assert scores[0].isfinite().all()


def test_an_image_without_boxes_has_no_masks(halving):
    masks, scores = halving(
        [torch.rand(3, 70, 90)] * 2, boxes=[torch.zeros(0, 4), torch.tensor([[0.0, 0, 20, 20]])]
    )
    assert masks[0].shape == (0, 70, 90) and scores[0].shape == (0,)
    assert masks[1].shape == (1, 70, 90)


def test_boxes_of_an_image_are_independent():
    model = build().eval()
    image, boxes = crops(1)[0], torch.tensor([[3.0, 4, 40, 50], [10, 10, 20, 20]])
    together = model([image], boxes=[boxes])
    apart = [model([image], boxes=[boxes[i : i + 1]]) for i in range(2)]
    assert torch.equal(together[0][0], torch.cat([masks[0] for masks, _ in apart]))
    torch.testing.assert_close(together[1][0], torch.cat([scores[0] for _, scores in apart]))


def test_predict_keeps_the_order_of_the_boxes_and_the_mode(halving, tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (70, 90, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "image.png")
    boxes = np.array([[10.0, 20, 30, 60], [0, 0, 71, 50]])
    for source in (pixels, Image.fromarray(pixels), tmp_path / "image.png"):
        instances = halving.train().predict(source, boxes)
        assert halving.training and instances.names == ["object", "object"]
        assert instances.boxes.tolist() == boxes.tolist()
        assert instances.masks[0, 20:60, 10:20].all() and instances.masks[0].sum() == 40 * 10
    assert len(halving.predict(pixels, [])) == 0
    assert len(halving.predict(pixels, [10, 20, 30, 60])) == 1
    with pytest.raises(UsageError, match=r"`boxes` has shape \(1, 3\)"):
        halving.predict(pixels, [[1, 2, 3]])


# learning ------------------------------------------------------------------------------------------------------------


def intersection_over_union(model: BoxCaseg, data: Annotations) -> np.ndarray:
    """(N,) of each instance's mask with the true one."""
    dataset = CropDataset(data, None, CropConfig(side=SIDE, shift=0, scale=(1, 1), flip=0))
    ious = []
    for index in range(len(dataset)):
        shown, truth = dataset[index, 0]
        with torch.no_grad():
            logits = model.predict_logits(shown[None], truth["rows"][None], truth["columns"][None])
        found = nn.functional.interpolate(logits[:, None], size=SIDE, mode="bilinear")[0, 0] > 0
        held = truth["mask"] > 0.5
        ious.append(((found & held).sum() / (found | held).sum()).item())
    return np.array(ious)


@pytest.mark.slow
def test_three_scenes_are_learned_from_boxes_and_salient_images(tmp_path):
    """Shapes that fill about half of their boxes: the masks found fit better than the boxes, filled, do."""
    data = write_scenes(tmp_path, 3)
    config = CropConfig(side=SIDE, salient="box", shift=0.1, scale=(0.9, 1.1))
    dataset = CropDataset(data.without_masks(), data, config)
    count = len(data.labels)
    model = build(backbone="resnet10t", neck_channels=32).train()
    steps = 60
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.003)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.003, steps, pct_start=0.2)
    rng = np.random.default_rng(0)
    first = None
    for step in range(steps):
        picks = [*rng.permutation(count)[:4], *(count + rng.permutation(count)[:4])]
        samples = [dataset[int(pick), step] for pick in picks]
        losses = model([shown for shown, _ in samples], [truth for _, truth in samples])
        optimizer.zero_grad()
        total(model, losses).backward()
        optimizer.step()
        schedule.step()
        first = first or {name: loss.item() for name, loss in losses.items()}
    assert losses["pixel"] < 0.7 * first["pixel"]
    ious = intersection_over_union(model.eval(), data)
    extent = data.boxes[:, 2:] - data.boxes[:, :2]
    filled_box = np.array([data.mask(i).sum() for i in range(count)]) / extent.prod(axis=1)
    assert ious.mean() > filled_box.mean() + 0.1


def test_predict_refuses_settings_that_other_models_have():
    with pytest.raises(UsageError, match=r"predict\(\) of BoxCaseg has no setting 'conf'; leave it out\."):
        load("boxcaseg").predict("street.jpg", [[0, 0, 8, 8]], conf=1)
