"""Complete trainings of BoxSup from boxes and from mixes, interrupted and resumed, and the choices of its updates."""

from __future__ import annotations

import json
import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import boxel
from boxel.data.annotations import Annotations
from boxel.models.boxsup import BoxSup, BoxSupDataset
from boxel.models.boxsup.dataset import NO_SEGMENT
from boxel.training import train
from boxel.training.boxsup import BoxSupTask
from boxel.utils.errors import BoxelError

pytestmark = pytest.mark.slow


@pytest.fixture
def watched(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, torch.Tensor]]:
    """(step, choices after it) of each update."""
    seen: list[tuple[int, torch.Tensor]] = []
    update = BoxSupTask._update

    def watching(self: BoxSupTask) -> None:
        update(self)
        seen.append((self.global_step, self.dataset.choices.clone()))

    monkeypatch.setattr(BoxSupTask, "_update", watching)
    return seen


def test_labels_are_updated_before_each_epoch(scenes: Annotations, tiny_boxsup, watched, tmp_path) -> None:
    out = tmp_path / "run"
    model = train("boxsup", scenes.without_masks(), out=out, config=tiny_boxsup)
    assert isinstance(model, BoxSup)
    assert [c.name for c in model.categories] == ["background", *(c.name for c in scenes.categories)]
    assert [step for step, _ in watched] == [0, 4]
    assert all((choices != NO_SEGMENT).all() for _, choices in watched)
    assert not torch.equal(watched[0][1], watched[1][1])
    assert sorted(p.name for p in (out / "labels").iterdir()) == ["update_001.jpg", "update_002.jpg"]
    again = boxel.load(out)
    for name, tensor in model.state_dict().items():
        torch.testing.assert_close(tensor, again.state_dict()[name])
    assert again.predict(scenes.image_path(0)).labels.shape == (64, 96)


def test_the_first_update_uses_the_boxes_alone(scenes, tiny_boxsup, watched, tmp_path) -> None:
    settings = tiny_boxsup | {"steps": 1, "updates": {"top_k": 1, "shape_weight": 0.0}}
    train("boxsup", scenes.without_masks(), out=tmp_path / "run", config=settings)
    dataset = BoxSupDataset(
        scenes.without_masks(), Path(tiny_boxsup["segments_folder"]), _segments(tiny_boxsup)
    )
    for image in range(len(scenes)):
        found = dataset.candidates(image)
        full = np.array([found.mask(k).sum() for k in range(len(found))]) / np.prod(
            found.boxes[:, 2:] - found.boxes[:, :2], axis=1
        )
        for instance in dataset.undecided(image):
            ious = _ious(found.boxes, scenes.boxes[instance])
            allowed = (full >= 0.2) & (ious > 0)
            assert ious[watched[0][1][instance]] == pytest.approx(ious[allowed].max())


def test_instances_are_found_on_top_of_a_semantic_run(scenes, tiny_boxsup, tmp_path) -> None:
    settings = tiny_boxsup | {"steps": 2}
    semantic = train("boxsup", scenes.without_masks(), out=tmp_path / "classes", config=settings)
    instances = {name: settings[name] for name in ("views", "data", "optim", "batch_size", "device", "steps")}
    instances["model"] = {
        name: value for name, value in settings["model"].items() if name not in ("classifier", "hidden")
    }
    out = tmp_path / "instances"
    train("fcrn-instances", scenes, out=out, config=instances, semantic=tmp_path / "classes")
    again = boxel.load(out)
    for name, tensor in semantic.network.state_dict().items():
        torch.testing.assert_close(again.semantic.state_dict()[name], tensor)


def test_without_updates_the_first_choice_stays(scenes, tiny_boxsup, watched, tmp_path) -> None:
    train(
        "boxsup", scenes.without_masks(), out=tmp_path / "run", config=tiny_boxsup | {"updates": {"every": 0}}
    )
    assert [step for step, _ in watched] == [0]


def test_given_masks_are_learned_unchanged(scenes, tiny_boxsup, watched, tmp_path) -> None:
    first = scenes.image_index == 0
    some = replace(scenes, segmentations=np.where(first, scenes.segmentations, None))
    train("boxsup", some, out=tmp_path / "run", config=tiny_boxsup | {"steps": 1})
    ((_, choices),) = watched
    assert ((choices == NO_SEGMENT).numpy() == first).all()


def test_images_with_given_masks_are_repeated(scenes, tiny_boxsup, tmp_path, caplog) -> None:
    """One scene of eight has given masks and is used three times, which makes ten crops per epoch."""
    caplog.set_level("INFO", logger="boxel")
    first = scenes.image_index == 0
    some = replace(scenes, segmentations=np.where(first, scenes.segmentations, None))
    train("boxsup", some, out=tmp_path / "run", config=tiny_boxsup | {"epochs": 1})
    assert "1 images with given masks are used 3 times per epoch" in caplog.text
    assert json.loads((tmp_path / "run" / "metrics.json").read_text())["step"] == 5


def test_a_resumed_run_equals_an_uninterrupted_one(scenes, tiny_boxsup, tmp_path, monkeypatch) -> None:
    boxes = scenes.without_masks()
    whole = train("boxsup", boxes, out=tmp_path / "whole", config=tiny_boxsup)
    read = BoxSupDataset._read
    for stop in (7, 15):  # in the fourth step, after which comes an update, and in the eighth
        out, seen = tmp_path / f"stopped_{stop}", []

        def interrupted(self, index, seen=seen, stop=stop):
            seen.append(index)
            if len(seen) == stop:
                signal.raise_signal(signal.SIGINT)
            return read(self, index)

        with monkeypatch.context() as patch:
            patch.setattr(BoxSupDataset, "_read", interrupted)
            first = train("boxsup", boxes, out=out, config=tiny_boxsup)
        resumed = train("boxsup", boxes, out=out, config=tiny_boxsup, resume=True) if first is None else first
        for name, tensor in whole.state_dict().items():
            torch.testing.assert_close(tensor, resumed.state_dict()[name], msg=name)


def test_images_with_boxes_only_are_not_used_for_validation(
    scenes, tiny_boxsup, watched, tmp_path, caplog
) -> None:
    caplog.set_level("INFO", logger="boxel")
    config = tiny_boxsup | {"steps": 1, "data": {"workers": 0, "val_share": 0.25}}
    model = train("boxsup", scenes.without_masks(), out=tmp_path / "run", config=config)
    assert model is not None and len(watched[0][1]) == len(scenes.ids)
    assert "no image is set aside for validation" in caplog.text
    # The share is of the images with masks, and empty images do not count.
    few = scenes.select_instances(scenes.image_index > 0)
    few = replace(few, segmentations=np.where(few.image_index < 5, few.segmentations, None))
    train("boxsup", few, out=tmp_path / "few", config=config)
    assert "1 of 8 images set aside for validation" in caplog.text


def test_a_missing_image_costs_only_its_own_instances(scenes, tiny_boxsup, watched, tmp_path, caplog) -> None:
    paths = ["gone.png", *scenes.paths[1:]]
    broken = replace(scenes.without_masks(), paths=paths)
    train("boxsup", broken, out=tmp_path / "run", config=tiny_boxsup | {"epochs": 1})
    assert "gone.png" in caplog.text
    ((_, choices),) = watched
    assert ((choices == NO_SEGMENT).numpy() == (scenes.image_index == 0)).all()


def test_unusable_inputs_are_reported(scenes, tiny_boxsup, tmp_path) -> None:
    boxes = scenes.without_masks()
    with pytest.raises(
        BoxelError, match="not one of its images has a label map or a mask to validate against"
    ):
        train("boxsup", boxes, out=tmp_path / "c", config=tiny_boxsup, val=boxes)


def _segments(settings: dict[str, Any]) -> Any:
    from boxel.proposals import ProposalConfig

    return ProposalConfig(**settings["segments"])


def _ious(boxes: np.ndarray, box: np.ndarray) -> np.ndarray:
    sides = (np.minimum(boxes[:, 2:], box[2:]) - np.maximum(boxes[:, :2], box[:2])).clip(0)
    common = sides.prod(1)
    area = (boxes[:, 2:] - boxes[:, :2]).prod(1)
    return common / (area + (box[2:] - box[:2]).prod() - common)
