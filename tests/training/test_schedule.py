"""The learning rate schedule against values worked by hand."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from boxel.training.config import BoxInstTraining, OptimConfig, ScheduleConfig
from boxel.training.schedule import build_optimizer, build_scheduler, lr_factor, make_plan


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        # 9 steps, drops at 2/3 and 8/9 of them.
        ("step", [1, 1, 1, 1, 1, 1, 0.1, 0.1, 0.01]),
        ("cosine", [1.0, 0.969846, 0.883022, 0.75, 0.586824, 0.413176, 0.25, 0.116978, 0.030154]),
        ("poly", [1.0, 0.899420, 0.797572, 0.694253, 0.589189, 0.481987, 0.372041, 0.258291, 0.138415]),
    ],
)
def test_schedules_match_values_worked_by_hand(kind, expected):
    found = [lr_factor(step, 9, 0, ScheduleConfig(kind=kind)) for step in range(9)]
    assert found == pytest.approx(expected, abs=1e-6)


def test_poly_falls_by_its_power():
    found = [lr_factor(step, 4, 0, ScheduleConfig(kind="poly", power=2.0)) for step in range(4)]
    assert found == pytest.approx([1, 9 / 16, 1 / 4, 1 / 16])


def test_hold_delays_the_fall():
    held = [lr_factor(step, 8, 0, ScheduleConfig(kind="poly", power=1, hold=0.5)) for step in range(8)]
    assert held == pytest.approx([1, 1, 1, 1, 1, 3 / 4, 1 / 2, 1 / 4])
    held = [lr_factor(step, 8, 0, ScheduleConfig(kind="cosine", hold=0.5)) for step in range(8)]
    assert held == pytest.approx([1, 1, 1, 1, 1, 0.853553, 0.5, 0.146447], abs=1e-6)


def test_warmup_rises_linearly_to_the_schedule():
    found = [lr_factor(step, 100, 4, ScheduleConfig()) for step in range(6)]
    assert found == pytest.approx([0.25, 0.5, 0.75, 1, 1, 1])


def test_an_eighth_of_the_batch_takes_eight_times_the_steps():
    config = BoxInstTraining(
        steps=90_000, batch_size=2
    )  # lr 0.01, 1000 steps of warm-up, at 16 images per step
    course = make_plan(config, num_samples=118_287)
    assert (course.steps, course.warmup) == (720_000, 8_000)
    assert course.lr == pytest.approx(0.01 / 8)


def test_accumulated_batches_and_processes_count_as_one_step():
    course = make_plan(
        BoxInstTraining(steps=90_000, batch_size=2, accumulate=2), num_samples=1000, processes=4
    )
    assert (course.steps, course.warmup, course.lr) == (90_000, 1000, 0.01)


def test_epochs_are_passes_over_the_images_whatever_the_batch():
    assert make_plan(BoxInstTraining(epochs=12, batch_size=4), num_samples=1000).steps == 3000
    assert make_plan(BoxInstTraining(epochs=12, batch_size=8), num_samples=1000).steps == 1500
    assert make_plan(BoxInstTraining(epochs=0.5, batch_size=4), num_samples=1000).steps == 125


def test_warmup_takes_at_most_a_quarter_of_a_run():
    assert make_plan(BoxInstTraining(epochs=1, batch_size=4), num_samples=100).warmup == 6


@pytest.mark.slow
@given(st.integers(1, 500), st.integers(0, 100), st.sampled_from(["step", "cosine", "poly"]))
def test_the_factor_is_in_unit_range_and_falls_after_warmup(steps, warmup, kind):
    course = [lr_factor(step, steps, warmup, ScheduleConfig(kind=kind)) for step in range(steps)]
    assert 0 < min(course) <= max(course) <= 1
    after = course[warmup:]
    assert after == sorted(after, reverse=True)


def test_norms_and_biases_do_not_decay_and_frozen_weights_are_left_out():
    model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.Linear(2, 2))
    model[2].requires_grad_(False)
    for name in ("sgd", "adamw"):
        optimizer = build_optimizer(model, OptimConfig(name=name, weight_decay=0.3), lr=0.1)
        decay = {id(p): group["weight_decay"] for group in optimizer.param_groups for p in group["params"]}
        assert decay[id(model[0].weight)] == 0.3
        assert decay[id(model[0].bias)] == decay[id(model[1].weight)] == decay[id(model[1].bias)] == 0
        assert len(decay) == 4


@pytest.mark.parametrize("inside", [False, True])
def test_the_backbone_has_its_own_learning_rate(inside):
    model = nn.ModuleDict({"backbone": nn.Linear(2, 2), "head": nn.Linear(2, 2)})
    whole = nn.ModuleDict({"network": model}) if inside else model
    optimizer = build_optimizer(whole, OptimConfig(backbone_lr=0.1), lr=0.5)
    rate = {id(p): group["lr"] for group in optimizer.param_groups for p in group["params"]}
    assert rate[id(model["backbone"].weight)] == rate[id(model["backbone"].bias)] == 0.05
    assert rate[id(model["head"].weight)] == 0.5


def test_biases_have_their_own_learning_rate_on_top_of_that_of_the_backbone():
    """The weights of norms are not biases."""
    model = nn.ModuleDict(
        {part: nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2)) for part in ("backbone", "head")}
    )
    optimizer = build_optimizer(model, OptimConfig(backbone_lr=0.1, bias_lr=2, weight_decay=0.3), lr=0.5)
    rates = {
        id(p): (group["lr"], group["weight_decay"])
        for group in optimizer.param_groups
        for p in group["params"]
    }
    assert len(rates) == 8
    for part, rate in (("backbone", 0.05), ("head", 0.5)):
        linear, norm = model[part]
        assert rates[id(linear.weight)] == (rate, 0.3) and rates[id(norm.weight)] == (rate, 0)
        assert rates[id(linear.bias)] == rates[id(norm.bias)] == (2 * rate, 0)


def test_the_optimizer_follows_the_schedule():
    config = BoxInstTraining(steps=9, batch_size=1, schedule=ScheduleConfig(warmup=2))
    config.optim.reference_batch = 0
    course = make_plan(config, num_samples=9)
    optimizer = build_optimizer(nn.Linear(1, 1), config.optim, course.lr)
    scheduler = build_scheduler(optimizer, course, config.schedule)
    rates = []
    for _ in range(course.steps):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    expected = 0.01 * torch.tensor([0.5, 1, 1, 1, 1, 1, 0.1, 0.1, 0.01])
    torch.testing.assert_close(torch.tensor(rates), expected)
