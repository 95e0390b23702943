"""The stream of batches: a resumed run gets what an uninterrupted one would have got."""

import pytest
import torch

from boxel.data.config import AugmentConfig
from boxel.data.dataset import InstanceDataset
from boxel.data.samplers import AspectBatchSampler
from boxel.data.transforms import train_transforms
from boxel.training.loader import ResumableLoader, Stream
from boxel.utils.errors import BoxelError


def _stream(scenes, length=11, rank=0, processes=1):
    return Stream(AspectBatchSampler(scenes, 3, seed=5, rank=rank, processes=processes), length)


def _loader(scenes, length=7, workers=0):
    config = AugmentConfig(short_sides=[48, 64], max_size=96, color=0.3)
    return ResumableLoader(
        InstanceDataset(scenes, train_transforms(config)), _stream(scenes, length), workers
    )


@pytest.mark.parametrize("start", [0, 1, 2, 3, 5, 10, 11])
def test_a_stream_resumes_at_any_batch(scenes, start):
    whole = list(_stream(scenes))  # 3 batches of 8 images per epoch
    later = _stream(scenes)
    later.start = start
    assert len(whole) == len(later) == 11
    assert list(later) == whole[start:]


def test_each_epoch_has_each_image_once_in_a_new_order(scenes):
    batches = list(_stream(scenes, length=6))
    epochs = [[index for batch in half for index, _ in batch] for half in (batches[:3], batches[3:])]
    assert sorted(epochs[0]) == sorted(epochs[1]) == list(range(8))
    assert epochs[0] != epochs[1]


def test_processes_share_an_epoch(scenes):
    shares = [list(_stream(scenes, length=2, rank=rank, processes=2)) for rank in range(2)]
    seen = [index for share in shares for batch in share for index, _ in batch]
    assert set(seen) == set(range(8))
    assert shares[0][0] != shares[1][0]


@pytest.mark.slow
@pytest.mark.parametrize("workers", [0, 1])
def test_a_resumed_loader_yields_the_same_pixels(scenes, workers):
    whole = list(_loader(scenes))
    first = _loader(scenes, workers=workers)
    batches = iter(first)
    for _ in range(4):
        next(batches)
    state = first.state_dict()  # workers have read ahead; only what was yielded counts
    assert state == {"seen": 4, "images": 8}
    second = _loader(scenes, workers=workers)
    second.load_state_dict(state)
    rest = list(second)
    assert len(rest) == 3
    for (images, targets), (expected, expected_targets) in zip(rest, whole[4:], strict=True):
        assert all(torch.equal(a, b) for a, b in zip(images, expected, strict=True))
        for a, b in zip(targets, expected_targets, strict=True):
            assert a["image_id"] == b["image_id"] and torch.equal(a["boxes"], b["boxes"])
    assert second.state_dict()["seen"] == 7


def test_resuming_on_another_dataset_is_refused(scenes):
    state = _loader(scenes).state_dict()
    fewer = scenes.select_images(range(7))
    with pytest.raises(BoxelError, match="7 samples to learn from, but the run started with 8"):
        _loader(fewer).load_state_dict(state)


@pytest.mark.parametrize("available", [True, False])
def test_batches_are_in_pinned_memory_if_there_is_a_gpu(scenes, monkeypatch, available):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: available)
    assert _loader(scenes).pin_memory is available
