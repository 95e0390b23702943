import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

from boxel.losses.bootstrap import bootstrapped_cross_entropy, hardest


def keep(ease, valid=None, **options):
    ease = torch.tensor(ease)
    valid = (
        torch.ones_like(ease, dtype=torch.bool) if valid is None else torch.tensor(valid, dtype=torch.bool)
    )
    return hardest(ease, valid, **options).tolist()


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"min_kept": 2}, [0, 1, 0, 1, 0]),
        ({"min_kept": 3}, [1, 1, 0, 1, 0]),  # of two that are as hard, the first
        ({"min_kept": 5}, [1, 1, 1, 1, 1]),
        ({"min_kept": 99}, [1, 1, 1, 1, 1]),
        ({"min_kept": 1, "threshold": 0.5}, [1, 1, 1, 1, 0]),  # 0.5 itself is kept
        ({"min_kept": 1, "threshold": 0.4}, [0, 1, 0, 1, 0]),
        ({"min_kept": 4, "threshold": 0.1}, [1, 1, 1, 1, 0]),  # it rises to the fourth
        ({"min_kept": 3, "threshold": 0.1}, [1, 1, 1, 1, 0]),  # and takes all that are as hard
    ],
)
def test_by_hand(options, expected):
    assert keep([0.5, 0.1, 0.5, 0.2, 0.9], **options) == [bool(kept) for kept in expected]


@pytest.mark.parametrize("threshold", [None, 0.6])
def test_void_pixels_are_never_kept(threshold):
    ease, valid = [0.1, 0.2, 0.3, 0.4], [False, True, False, True]
    assert keep(ease, valid, min_kept=1, threshold=threshold) == [False, True, False, threshold is not None]
    assert keep(ease, valid, min_kept=3, threshold=threshold) == [
        False,
        True,
        False,
        True,
    ]  # fewer than 3 are valid
    assert not any(keep(ease, [False] * 4, min_kept=3, threshold=threshold))
    assert keep([], [], min_kept=3, threshold=threshold) == []


@given(st.integers(0, 10**6), st.integers(1, 70))
def test_exactly_so_many_and_none_easier_than_one_that_is_dropped(seed, count):
    random = torch.Generator().manual_seed(seed)
    ease = torch.rand(3, 4, 5, generator=random).mul(8).round()  # many alike
    valid = torch.rand(3, 4, 5, generator=random) < 0.8
    kept = hardest(ease, valid, count)
    assert kept.sum() == min(count, int(valid.sum()))
    assert not (kept & ~valid).any()
    dropped = ease[valid & ~kept]
    assert not kept.any() or not dropped.numel() or ease[kept].max() <= dropped.min()


def test_the_loss_by_hand():
    """Probabilities of the true class 0.9, 0.5, 0.2, and a pixel without a label: the mean of -log over those kept."""
    p = torch.tensor([0.9, 0.5, 0.2, 0.3])
    logits = torch.stack([p, 1 - p]).log().view(1, 2, 2, 2).requires_grad_()
    labels = torch.tensor([[[0, 0], [0, 255]]])
    hard = -torch.log(torch.tensor([0.5, 0.2])).mean()
    torch.testing.assert_close(bootstrapped_cross_entropy(logits, labels, 2), hard)
    torch.testing.assert_close(bootstrapped_cross_entropy(logits, labels, 1, threshold=0.6), hard)
    loss = bootstrapped_cross_entropy(logits, labels, 2)
    (gradient,) = torch.autograd.grad(loss, logits)
    assert (gradient[0, :, 0, 0] == 0).all() and (gradient[0, :, 1, 1] == 0).all()  # dropped, and void
    # Of cross-entropy, p - 1 at the true class, by the two pixels kept.
    torch.testing.assert_close(gradient[0, 0, [0, 1], [1, 0]], torch.tensor([-0.5, -0.8]) / 2)


def test_all_pixels_kept_is_plain_cross_entropy():
    torch.manual_seed(0)
    logits, labels = torch.randn(2, 5, 6, 7), torch.randint(0, 5, (2, 6, 7))
    labels[:, :2] = 255
    plain = F.cross_entropy(logits, labels, ignore_index=255)
    for options in ({"min_kept": 84}, {"min_kept": 1, "threshold": 1.0}):
        torch.testing.assert_close(bootstrapped_cross_entropy(logits, labels, **options), plain)


def test_a_batch_without_labels_gives_zero_and_no_nan():
    logits = torch.randn(1, 3, 2, 2, requires_grad=True)
    loss = bootstrapped_cross_entropy(logits, torch.full((1, 2, 2), 255), 2, threshold=0.5)
    assert loss == 0
    loss.backward()
    assert (logits.grad == 0).all()
