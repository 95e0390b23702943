import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

from boxel.losses.bootstrap import bootstrapped_cross_entropy, select_hard_pixels


def keep(ease, valid=None, **options):
    ease = torch.tensor(ease)
    valid = (
        torch.ones_like(ease, dtype=torch.bool) if valid is None else torch.tensor(valid, dtype=torch.bool)
    )
    return select_hard_pixels(ease, valid, **options).tolist()


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"min_kept": 2}, [0, 1, 0, 1, 0]),
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
def test_ignored_pixels_are_never_kept(threshold):
    ease, valid = [0.1, 0.2, 0.3, 0.4], [False, True, False, True]
    assert keep(ease, valid, min_kept=1, threshold=threshold) == [False, True, False, threshold is not None]
    assert keep(ease, valid, min_kept=3, threshold=threshold) == valid  # fewer than 3 are valid
    assert not any(keep(ease, [False] * 4, min_kept=3, threshold=threshold))
    assert keep([], [], min_kept=3, threshold=threshold) == []


def test_ties_keep_exactly_the_requested_number():
    kept = keep([0.5, 0.1, 0.5, 0.2, 0.9], min_kept=3)
    assert kept[1] and kept[3] and not kept[4] and kept[0] != kept[2]
    assert sum(keep([0.5] * 9, min_kept=4)) == 4


@pytest.mark.parametrize("threshold", [None, 0.5])
def test_nan_is_kept_as_the_hardest(threshold):
    assert keep([0.1, torch.nan, 0.9], min_kept=1, threshold=threshold)[1]


@given(st.integers(0, 10**6), st.integers(1, 70))
def test_kept_pixels_are_the_requested_number_of_hardest_ones(seed, count):
    random = torch.Generator().manual_seed(seed)
    ease = torch.rand(3, 4, 5, generator=random).mul(8).round()  # many alike
    valid = torch.rand(3, 4, 5, generator=random) < 0.8
    kept = select_hard_pixels(ease, valid, count)
    assert kept.sum() == min(count, int(valid.sum()))
    assert not (kept & ~valid).any()
    dropped = ease[valid & ~kept]
    assert not kept.any() or not dropped.numel() or ease[kept].max() <= dropped.min()


def test_the_loss_by_hand():
    """Probabilities of the true class 0.9, 0.5, 0.2, and an unlabeled pixel: the mean of -log over the kept ones."""
    p = torch.tensor([0.9, 0.5, 0.2, 0.3])
    logits = torch.stack([p, 1 - p]).log().view(1, 2, 2, 2).requires_grad_()
    labels = torch.tensor([[[0, 0], [0, 255]]])
    hard = -torch.log(torch.tensor([0.5, 0.2])).mean()
    torch.testing.assert_close(bootstrapped_cross_entropy(logits, labels, 2), hard)
    torch.testing.assert_close(bootstrapped_cross_entropy(logits, labels, 1, threshold=0.6), hard)
    loss = bootstrapped_cross_entropy(logits, labels, 2)
    (gradient,) = torch.autograd.grad(loss, logits)
    assert (gradient[0, :, 0, 0] == 0).all() and (gradient[0, :, 1, 1] == 0).all()  # dropped, and ignored
    # Of cross-entropy, p - 1 at the true class, over the two kept pixels.
    torch.testing.assert_close(gradient[0, 0, [0, 1], [1, 0]], torch.tensor([-0.5, -0.8]) / 2)


@pytest.mark.parametrize("options", [{"min_kept": 20}, {"min_kept": 5, "threshold": 0.4}])
def test_gradient_equals_autograd_of_the_kept_pixels(options):
    torch.manual_seed(0)
    logits = torch.randn(2, 5, 4, 6, dtype=torch.double, requires_grad=True)
    labels = torch.randint(0, 5, (2, 4, 6))
    labels[0, :2] = 255
    losses = F.cross_entropy(logits, labels, ignore_index=255, reduction="none")
    kept = select_hard_pixels(torch.exp(-losses), labels != 255, **options)
    assert 5 < kept.sum() < 36
    loss = bootstrapped_cross_entropy(logits, labels, **options)
    torch.testing.assert_close(loss, losses[kept].mean())
    (expected,) = torch.autograd.grad(3 * losses[kept].mean(), logits)
    (gradient,) = torch.autograd.grad(3 * loss, logits)
    torch.testing.assert_close(gradient, expected)
    assert (gradient.movedim(1, -1)[~kept] == 0).all()
    assert (gradient.movedim(1, -1)[kept] != 0).all()


@pytest.mark.parametrize("threshold", [None, 0.5])
def test_half_precision_is_summed_in_float32(threshold):
    torch.manual_seed(0)
    logits, labels = torch.randn(1, 4, 8, 8).bfloat16().requires_grad_(), torch.randint(0, 4, (1, 8, 8))
    loss = bootstrapped_cross_entropy(logits, labels, 16, threshold)
    assert loss == bootstrapped_cross_entropy(logits.detach().float(), labels, 16, threshold)
    loss.backward()
    assert logits.grad.dtype == torch.bfloat16


@pytest.mark.parametrize("ignored", [-1, 3, 255])
def test_predictions_of_ignored_pixels_do_not_matter(ignored):
    logits = torch.zeros(1, 3, 2, 2)
    logits[0, 0, 0] = -torch.inf  # impossible: the class that ignored pixels look up
    labels = torch.tensor([[[ignored, ignored], [1, 2]]])
    loss = bootstrapped_cross_entropy(logits, labels, 4, ignore_index=ignored)
    torch.testing.assert_close(loss, torch.tensor(3.0).log())


def test_a_label_out_of_range_is_an_error():
    with pytest.raises((RuntimeError, IndexError), match="out of bounds"):
        bootstrapped_cross_entropy(torch.zeros(1, 3, 1, 2), torch.tensor([[[3, 0]]]), 1)


@pytest.mark.parametrize("threshold", [None, 0.5])
def test_divergence_makes_the_loss_nan(threshold):
    logits = torch.zeros(1, 3, 4, 4)
    logits[0, 1, 2, 2] = torch.nan
    loss = bootstrapped_cross_entropy(logits, torch.zeros(1, 4, 4, dtype=torch.long), 2, threshold)
    assert loss.isnan()


@pytest.mark.parametrize("threshold", [None, 0.5])
def test_nothing_synchronizes_with_the_device(threshold):
    """On the meta device, values are not available and shapes cannot depend on them."""
    logits = torch.zeros(2, 3, 4, 4, device="meta", requires_grad=True)
    labels = torch.zeros(2, 4, 4, device="meta", dtype=torch.long)
    bootstrapped_cross_entropy(logits, labels, 5, threshold).backward()
    assert logits.grad.shape == logits.shape


def test_all_pixels_kept_is_plain_cross_entropy():
    torch.manual_seed(0)
    logits, labels = torch.randn(2, 5, 6, 7), torch.randint(0, 5, (2, 6, 7))
    labels[:, :2] = 255
    plain = F.cross_entropy(logits, labels, ignore_index=255)
    for options in ({"min_kept": 84}, {"min_kept": 1, "threshold": 1.0}):
        torch.testing.assert_close(bootstrapped_cross_entropy(logits, labels, **options), plain)


@pytest.mark.parametrize("threshold", [None, 0.5])
@pytest.mark.parametrize("batch", [0, 1])
def test_a_batch_without_labels_gives_zero_and_no_nan(batch, threshold):
    logits = torch.randn(batch, 3, 2, 2, requires_grad=True)
    loss = bootstrapped_cross_entropy(logits, torch.full((batch, 2, 2), 255), 2, threshold)
    assert loss == 0
    loss.backward()
    assert (logits.grad == 0).all()
