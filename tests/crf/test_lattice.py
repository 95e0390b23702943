"""The permutohedral lattice: where points fall in it, and that it filters like a Gaussian."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from boxel.crf.lattice import WeightedSums, build_lattice
from boxel.utils.errors import BoxelError


def points(seed: int, n: int, d: int, spread: float) -> torch.Tensor:
    return spread * torch.randn(n, d, generator=torch.Generator().manual_seed(seed))


def test_weighted_sums_by_hand() -> None:
    """Row 0 is 2 a + 3 c, row 1 is 5 b."""
    sums = WeightedSums(torch.tensor([0, 2, 1]), torch.tensor([2.0, 3.0, 5.0]), torch.tensor([0, 2]))
    assert sums(torch.tensor([[1.0, 10], [2, 20], [3, 30]])).tolist() == [[11, 110], [10, 100]]


def test_a_line_by_hand() -> None:
    """On a line a vertex is sqrt(3 / 4) standard deviations from the next, and each direction blurs along it once.

    The first point lies on a vertex, the second on the next one. Splat gives (1, 0) and (0, 1); a blur adds half of the
    neighbor to each, (1, 1/2), and the second blur, the other way along the same line, (5/4, 1).
    """
    found = build_lattice(torch.tensor([[0.0], [0.75**0.5]]))
    torch.testing.assert_close(found.filter(torch.eye(2)), torch.tensor([[1.25, 1.0], [1.0, 1.25]]))


@pytest.mark.slow
@given(st.integers(0, 10**6), st.integers(1, 6), st.sampled_from([0.01, 1.0, 30.0]))
def test_points_lie_within_their_simplices(seed, d, spread) -> None:
    """Weights are barycentric: none below 0, of sum 1, and as many vertices as a simplex has."""
    found = build_lattice(points(seed, 50, d, spread))
    weights = found.slice.weights.view(50, d + 1)
    assert weights.min() >= -1e-5
    torch.testing.assert_close(weights.sum(1), torch.ones(50))
    assert all(len(own.unique()) == d + 1 for own in found.slice.rows.view(50, d + 1))
    splat = torch.zeros(len(found.splat.starts)).index_add(0, found.slice.rows, found.slice.weights)
    torch.testing.assert_close(found.splat(torch.ones(50, 1)).squeeze(1), splat, atol=1e-4, rtol=0)


@pytest.mark.slow
@given(st.integers(0, 10**6), st.integers(1, 5))
def test_the_order_of_points_does_not_matter(seed, d) -> None:
    features = points(seed, 40, d, 1.0)
    values = points(seed + 1, 40, 3, 1.0)
    order = torch.randperm(40, generator=torch.Generator().manual_seed(seed))
    found = build_lattice(features).filter(values)
    torch.testing.assert_close(
        build_lattice(features[order]).filter(values[order]), found[order], atol=1e-4, rtol=1e-4
    )


@pytest.mark.parametrize(("d", "error"), [(1, 0.04), (2, 0.05), (3, 0.07), (5, 0.12)])
def test_filters_like_a_gaussian(d, error) -> None:
    """Means over all points, weighted by the true kernel and by the lattice's."""
    features, values = points(0, 600, d, 1.0), torch.rand(600, 4, generator=torch.Generator().manual_seed(1))
    kernel = torch.exp(-(torch.cdist(features, features) ** 2) / 2)
    wanted = kernel @ values / kernel.sum(1, keepdim=True)
    found = build_lattice(features)
    means = found.filter(values) / found.filter(torch.ones(600, 1))
    spread = (wanted - wanted.mean(0)).square().mean().sqrt()
    assert (means - wanted).square().mean().sqrt() < max(error * spread, error / 2)


def test_groups_do_not_mix() -> None:
    features, values = points(0, 60, 3, 1.0), points(1, 60, 2, 1.0)
    together = build_lattice(torch.cat([features, features]), torch.arange(2).repeat_interleave(60))
    apart = build_lattice(features).filter(values)
    torch.testing.assert_close(
        together.filter(torch.cat([values, 3 * values])), torch.cat([apart, 3 * apart])
    )


def test_normalization_is_symmetric() -> None:
    features = points(2, 30, 2, 1.0)
    kernel = build_lattice(features).filter(torch.eye(30))
    norm = kernel.sum(1).rsqrt()
    torch.testing.assert_close(
        build_lattice(features).normalized(4).filter(torch.eye(30)), 4 * norm[:, None] * kernel * norm
    )


def test_a_lattice_too_fine_is_refused() -> None:
    with pytest.raises(
        BoxelError, match=r"lattice of the CRF, \d+ x .* cells, is too fine; raise its sigmas"
    ):
        build_lattice(points(0, 10, 5, 1e6))
