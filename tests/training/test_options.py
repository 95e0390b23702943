"""Each setting of a run reaches Lightning, the optimizer or the dataset."""

import numpy as np
import pytest
import torch
from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import EarlyStopping
from torch.optim import SGD, AdamW
from torchvision.transforms import v2

from boxel.training import train
from boxel.training.callbacks.averaging import AveragedWeights
from boxel.training.callbacks.checkpoints import LastCheckpoint, Stopped

pytestmark = pytest.mark.slow


@pytest.fixture
def handed_over(scenes, tiny, tmp_path, monkeypatch):
    """A function of settings that returns the trainer, the task and the loader of a run with them."""
    handed = []

    def fit(trainer, task, loader, *_, **__):
        handed.append((trainer, task, loader))
        raise Stopped

    monkeypatch.setattr(Trainer, "fit", fit)

    def start(**changes):
        train("boxinst", scenes, out=tmp_path / str(len(handed)), config=tiny, **changes)
        return handed[-1]

    return start


def callback(trainer, kind):
    return next((c for c in trainer.callbacks if isinstance(c, kind)), None)


def transforms_by_type(loader):
    return {type(step): step for step in loader.dataset.transforms.transforms}


def test_optimizer(handed_over):
    for name, kind in [("sgd", SGD), ("adamw", AdamW)]:
        _, task, _ = handed_over(**{"optim.name": name, "optim.momentum": 0.7})
        optimizer = task.configure_optimizers()["optimizer"]
        assert type(optimizer) is kind
        assert optimizer.defaults.get("momentum", 0.7) == 0.7


@pytest.mark.parametrize(
    ("setting", "value", "attribute", "expected"),
    [
        ("optim.clip", 3.5, "gradient_clip_val", 3.5),
        ("optim.clip", 0.0, "gradient_clip_val", None),
        ("precision", "bf16-mixed", "precision", "bf16-mixed"),
        ("accumulate", 2, "accumulate_grad_batches", 2),
        ("devices", 1, "num_devices", 1),
        ("nodes", 1, "num_nodes", 1),
    ],
)
def test_trainer(handed_over, setting, value, attribute, expected):
    trainer, _, _ = handed_over(**{setting: value})
    assert getattr(trainer, attribute) == expected


def test_callbacks(handed_over):
    trainer, _, _ = handed_over()
    assert callback(trainer, AveragedWeights) is callback(trainer, EarlyStopping) is None
    trainer, _, _ = handed_over(ema=0.9, patience=3, checkpoint_every=7)
    assert callback(trainer, AveragedWeights) is not None
    assert callback(trainer, EarlyStopping).patience == 3
    assert callback(trainer, LastCheckpoint).every == 7


def test_data(handed_over, scenes):
    plain = handed_over(**{"data.val_share": 0.0})[2].dataset
    assert np.array_equal(plain.data.boxes, scenes.boxes)
    assert not plain.data.iscrowd.any()
    sides = (scenes.boxes[:, 2:] - scenes.boxes[:, :2]).min(1)
    least = float(np.median(sides))
    _, _, loader = handed_over(**{"data.val_share": 0.0, "data.min_box": least, "data.workers": 1})
    assert loader.num_workers == 1
    assert np.array_equal(loader.dataset.data.iscrowd, sides < least)


def test_augmentation(handed_over, scenes):
    loader = handed_over(**{"augment.flip": 0.0, "augment.short_sides": [32, 64]})[2]
    steps = transforms_by_type(loader)
    assert not {v2.RandomHorizontalFlip, v2.ColorJitter} & set(steps)
    sides = {tuple(loader.dataset[0][0].shape[1:]) for _ in range(30)}
    height, width = scenes.image_size(0)[::-1]
    assert {min(pair) for pair in sides} == {32, min(64, 96 * min(height, width) // max(height, width))}
    assert max(max(pair) for pair in sides) <= 96
    loader = handed_over(**{"augment.flip": 0.3, "augment.color": 0.2})[2]
    steps = transforms_by_type(loader)
    assert steps[v2.RandomHorizontalFlip].p == 0.3
    assert tuple(steps[v2.ColorJitter].brightness) == pytest.approx((0.8, 1.2))


def test_ema_averages_by_its_decay(scenes, tiny, run_folder):
    """After two steps, the average lies on the way from the first step's weights to those of the second."""

    def trained(name, **settings):
        constant = {
            "schedule.kind": "step",
            "schedule.warmup": 0,
            "model.affinity_warmup": 0.0,
            "data.val_share": 0.0,
        }
        return train("boxinst", scenes, out=run_folder / name, config=tiny, **constant, **settings)

    first, second = trained("first", steps=1), trained("second", steps=2)
    for ema, share in ((0.1, 0.9), (0.99, 4 / 9)):
        found = trained(f"{ema}", steps=2, ema=ema)
        for mean, old, new in zip(found.parameters(), first.parameters(), second.parameters(), strict=True):
            torch.testing.assert_close(mean, old + share * (new - old))
