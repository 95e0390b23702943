"""Training steps and validations, mostly without a trainer."""

import re
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

from boxel.evaluation import coco_ap, mask_iou
from boxel.training import instances
from boxel.training.config import BoxInstTraining
from boxel.training.instances import InstanceTask, validation_metrics
from boxel.training.lit_module import gather_by_image
from boxel.training.schedule import make_plan


class _Model(nn.Module):
    """A model with given losses and one weight that all of them change."""

    def __init__(self, **losses):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(2))
        self.losses = losses

    def forward(self, images, targets):
        return {name: self.weight.sum() * value for name, value in self.losses.items()}

    def loss_weights(self, progress):
        return {"box": 1.0, "affinity": 0.5 * min(2 * progress, 1.0)}


def _task(model, step=0, steps=10):
    config = BoxInstTraining(steps=steps, batch_size=16)
    task = InstanceTask(model, config, make_plan(config, 100), None)
    task.logged = {}
    task.log = lambda name, value, **_: task.logged.update({name: float(value)})
    task.log_dict = lambda values, **_: task.logged.update({n: float(v) for n, v in values.items()})
    alone = SimpleNamespace(reduce=lambda values, reduce_op: values)
    task._trainer = SimpleNamespace(global_step=step, world_size=1, lightning_module=task, strategy=alone)
    return task


_BATCH = ([torch.zeros(3, 8, 8)], [{"image_id": 17}])


@pytest.fixture(autouse=True)
def _global_step(monkeypatch):
    monkeypatch.setattr(InstanceTask, "global_step", property(lambda self: self._trainer.global_step))


def test_raw_losses_and_their_weights_are_logged_separately():
    task = _task(_Model(box=3.0, affinity=4.0), step=2)
    total = task.training_step(_BATCH, 0)
    assert task.logged == pytest.approx(
        {
            "loss/box": 6.0,
            "loss/affinity": 8.0,
            "weight/box": 1.0,
            "weight/affinity": 0.2,  # 0.5 x 2 x 2 / 10
            "loss/total": 7.6,
            "lr": 0.01,  # after the warm-up of 10 // 4 steps
        }
    )
    assert float(total) == pytest.approx(7.6)


def test_a_non_finite_loss_is_reported_with_its_images(caplog):
    task = _task(_Model(box=1.0, affinity=float("nan")), step=3)
    task.training_step(_BATCH, 0)
    assert "step 3: the loss affinity is not finite (images [17])" in caplog.text
    caplog.clear()
    _task(_Model(box=1.0, affinity=1.0)).training_step(_BATCH, 0)
    assert not caplog.messages


@pytest.mark.parametrize("name", ["SGD", "AdamW"])
def test_a_step_with_a_non_finite_gradient_is_skipped(name, caplog):
    model = _Model(box=1.0)
    task = _task(model)
    optimizer = getattr(torch.optim, name)(model.parameters(), lr=0.1, weight_decay=0.1)
    model.weight.grad = torch.tensor([1.0, float("inf")])
    task.on_before_optimizer_step(optimizer)
    assert "the loss is finite, but its gradient is not" in caplog.text
    optimizer.step()
    assert model.weight.tolist() == [1.0, 1.0]
    model.weight.grad = torch.tensor([1.0, 2.0])
    task.on_before_optimizer_step(optimizer)
    optimizer.step()
    assert model.weight.grad.tolist() == [1.0, 2.0]
    assert model.weight[0] < 1


def test_box_like_masks_are_diagnosed(monkeypatch, caplog):
    task = _task(_Model(), step=5)
    task.truth = object()
    cause = lambda model, progress: f"there is a cause at {progress}"  # noqa: E731
    monkeypatch.setattr(instances, "diagnose_filled_masks", cause)
    monkeypatch.setattr(instances, "validation_metrics", lambda results, truth: {"mask_fill": 0.97})
    monkeypatch.setattr(instances, "choose_thresholds", lambda truth, results: {})
    task.on_validation_epoch_end()
    assert "masks fill 97% of their boxes: there is a cause at 0.5." in caplog.text
    assert task.logged == {"val/mask_fill": 0.97}


@pytest.mark.parametrize(
    ("weights", "cause"),
    [
        ((0.0, 0.0), r"the affinity loss is off \(`model\.affinity_weight` is 0\)"),
        ((0.1, 0.5), r"weight 0\.10 of 0\.50, so wait for the end of its warm-up"),
        ((0.5, 0.5), r"raise `model\.tau` \(see `boxel inspect affinity`\)"),
    ],
)
def test_filled_masks_are_diagnosed_by_the_weight_of_the_affinity_loss(weights, cause):
    model = SimpleNamespace(loss_weights=lambda progress: {"affinity": weights[progress == 1.0]})
    assert re.search(cause, instances.diagnose_filled_masks(model, 0.5))


@pytest.mark.parametrize(
    ("hint", "advice"), [(0.0, "set `model.hint_weight` to 1"), (1.0, "is too short so far")]
)
def test_filled_masks_need_hints_or_longer_training(hint, advice):
    model = SimpleNamespace(loss_weights=lambda progress: {"affinity": 1.0, "hint": hint})
    assert advice in instances.diagnose_filled_masks(model, 0.5)


def _results(data, shift=0.0):
    """All instances as detections, with boxes shifted to the right by a share of their width."""
    rows = []
    for i, (x0, y0, x1, y1) in enumerate(data.boxes.tolist()):
        rows.append(
            {
                "image_id": data.image_ids[data.image_index[i]],
                "category_id": data.categories[data.labels[i]].id,
                "bbox": [x0 + shift * (x1 - x0), y0, x1 - x0, y1 - y0],
                "score": 0.9,
                "segmentation": data.rle(i),
            }
        )
    return rows


def test_metrics_with_and_without_true_masks(scenes):
    results = _results(scenes, 0.2)
    found = validation_metrics(results, scenes)
    assert set(found) == {
        "box_AP",
        "box_AP50",
        "mask_AP",
        "mask_AP50",
        "mask_AP75",
        "mask_iou",
        "mask_fill",
    }
    assert found["box_AP"] == coco_ap(scenes, results, "bbox")["AP"] < 1
    assert found["mask_AP"] == pytest.approx(1)
    assert found["mask_iou"] == mask_iou(scenes, results)["mask_iou"]
    boxes = scenes.boxes[:, 2:] - scenes.boxes[:, :2]
    fill = np.mean([scenes.mask(i).sum() / boxes[i].prod() for i in range(len(boxes))])
    assert found["mask_fill"] == pytest.approx(fill)
    assert set(validation_metrics(results, scenes.without_masks())) == {
        "box_AP",
        "box_AP50",
        "box_agreement",
        "mask_fill",
    }


def test_undefined_metrics_are_left_out(scenes):
    empty = scenes.select_instances(np.array([], dtype=int))
    assert validation_metrics([], empty) == {}


def test_an_image_seen_by_two_processes_counts_once(monkeypatch):
    parts = [{1: ["a", "b"], 2: ["c"]}, {3: [], 1: ["a", "b"]}]
    monkeypatch.setattr(
        torch.distributed, "all_gather_object", lambda into, own: into.__setitem__(slice(None), parts)
    )
    together = gather_by_image(parts[0], 2)
    assert sorted(row for rows in together.values() for row in rows) == ["a", "b", "c"]
    assert gather_by_image(parts[0], 1) == parts[0]
