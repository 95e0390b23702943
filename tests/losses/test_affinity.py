"""Color affinity (Eq. 4-8 of BoxInst)."""

import math
from itertools import product

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from skimage.color import deltaE_cie76, rgb2lab
from torch import Tensor

from boxel.losses import affinity
from boxel.losses.affinity import (
    affinity_loss,
    color_similarity,
    edge_offsets,
    supervised_affinity_loss,
    valid_pixels,
    warmup_weight,
)
from boxel.losses.projection import projection_loss
from boxel.masks.spans import box_masks, box_spans

FORMS = list(product(["supervised", "edges"], ["center", "either"]))
KEYWORDS = [{"normalizer": normalizer, "inside": inside} for normalizer, inside in FORMS]
ONE_IMAGE = torch.tensor([0])


def random_case(seed: int, n: int = 5, h: int = 9, w: int = 11, size: int = 3) -> tuple[Tensor, ...]:
    """Logits, edges of two images, image_index, rows, columns; boxes of all sizes, some at the border."""
    generator = torch.Generator().manual_seed(seed)
    logits = 3 * torch.randn(n, h, w, dtype=torch.float64, generator=generator)
    edges = torch.rand(2, (size**2 - 1) // 2, h, w, generator=generator) < 0.6
    corners = (torch.rand(n, 2, generator=generator) - 0.2) * torch.tensor([w, h])
    sizes = torch.rand(n, 2, generator=generator) * torch.tensor([w, h])
    rows, columns = box_spans(torch.cat([corners, corners + sizes], 1), h, w, 1)
    return logits, edges, torch.arange(n) % 2, rows, columns


def neighbors(x: Tensor, size: int, dilation: int) -> Tensor:
    """(N, h, w) -> (N, size^2 - 1, h, w): the values around each pixel, zero off the grid."""
    patches = F.unfold(x[:, None], size, dilation=dilation, padding=dilation * (size // 2))
    patches = patches.unflatten(2, x.shape[1:])
    middle = size**2 // 2
    return torch.cat([patches[:, :middle], patches[:, middle + 1 :]], 1)


def both_directions(edges: Tensor, size: int, dilation: int) -> Tensor:
    """(B, E, h, w) edges from their starts -> (B, 2E, h, w) seen from each pixel, in the order of `neighbors`."""
    height, width = edges.shape[2:]
    seen = []
    for e, (dy, dx) in enumerate(edge_offsets(size, dilation)):
        reverse = torch.zeros_like(edges[:, e])
        for y, x in product(range(height), range(width)):
            if y >= dy and 0 <= x - dx < width:
                reverse[:, y, x] = edges[:, e, y - dy, x - dx]
        seen.append(reverse)
    return torch.cat([torch.stack(seen[::-1], 1), edges], 1)


def plain(
    logits: Tensor,
    edges: Tensor,
    image_index: Tensor,
    rows: Tensor,
    columns: Tensor,
    size: int = 3,
    dilation: int = 2,
    normalizer: str = "supervised",
    inside: str = "center",
) -> Tensor:
    """The loss with every edge seen from both of its ends."""
    p = logits.sigmoid()
    q, p = neighbors(p, size, dilation), p[:, None]
    nll = -(p * q + (1 - p) * (1 - q)).log()
    box = box_masks(rows, columns).to(logits.dtype)
    about = box[:, None].expand_as(nll)
    if inside == "either":  # seen twice, counted once
        about = torch.maximum(about, neighbors(box, size, dilation)) / 2
    about = about * neighbors(torch.ones_like(box), size, dilation)
    supervised = about * both_directions(edges, size, dilation)[image_index]
    if normalizer == "supervised":
        return (nll * supervised).sum() / supervised.sum().clamp(min=1)
    return ((nll * supervised).sum((1, 2, 3)) / about.sum((1, 2, 3)).clamp(min=1)).mean()


def make_row(*probabilities: float) -> Tensor:
    """Logits (1, 1, n); with dilation 2 the edges of a row are (0, 2), (1, 3), ..."""
    return torch.tensor([[probabilities]], dtype=torch.float64).logit()


def make_box(size: int, *columns: int) -> tuple[Tensor, Tensor]:
    inside = torch.zeros(1, size, dtype=torch.bool)
    inside[0, list(columns)] = True
    return torch.ones(1, 1, dtype=torch.bool), inside


def all_edges(height: int, width: int, count: int = 4) -> Tensor:
    return torch.ones(1, count, height, width, dtype=torch.bool)


def test_offsets_are_half_the_patch():
    assert edge_offsets(3, 2) == [(0, 2), (2, -2), (2, 0), (2, 2)]
    assert len(edge_offsets(5, 1)) == 12
    whole = {(y, x) for y, x in product((-2, 0, 2), repeat=2)} - {(0, 0)}
    assert {*edge_offsets(3, 2), *((-y, -x) for y, x in edge_offsets(3, 2))} == whole


@pytest.mark.parametrize(("size", "dilation"), [(2, 1), (1, 1), (3, 0)])
def test_even_or_small_patches_are_refused(size: int, dilation: int):
    with pytest.raises(ValueError, match="odd size"):
        edge_offsets(size, dilation)


@pytest.mark.parametrize(("normalizer", "inside"), FORMS)
def test_equation_4_by_hand(normalizer: str, inside: str):
    # one edge, from .8 to .6: P(same) = .48 + .08
    loss = affinity_loss(
        make_row(0.8, 0.1, 0.6),
        all_edges(1, 3),
        ONE_IMAGE,
        *make_box(3, 0, 1, 2),
        normalizer=normalizer,
        inside=inside,
    )
    assert loss.item() == pytest.approx(-math.log(0.56))


def test_equation_5_by_hand():
    logits = make_row(0.9, 0.8, 0.3, 0.4, 0.5)
    masks = torch.tensor([[[1, 1, 0, 1, 0]]], dtype=torch.bool)
    # E_in of a box over columns 0 and 1: (0, 2) with y = 0, P(same) = .27 + .07; (1, 3) with y = 1, P(same) = .32 + .12
    loss = supervised_affinity_loss(logits, masks, *make_box(5, 0, 1))
    assert loss.item() == pytest.approx(-(math.log(0.66) + math.log(0.44)) / 2)


def test_equation_5_as_it_is_written():
    logits, _, _, rows, columns = random_case(0)
    masks = torch.rand(logits.shape, generator=torch.Generator().manual_seed(1)) > 0.5
    p, m, box = logits.sigmoid(), masks.double(), box_masks(rows, columns).double()
    q, p = neighbors(p, 3, 2), p[:, None]
    same = p * q + (1 - p) * (1 - q)
    y = (m[:, None] == neighbors(m, 3, 2)).double()
    e_in = torch.maximum(box[:, None], neighbors(box, 3, 2)) * neighbors(torch.ones_like(box), 3, 2)
    terms = -(y * same.log() + (1 - y) * (1 - same).log()) * e_in
    expected = (terms.sum((1, 2, 3)) / e_in.sum((1, 2, 3))).mean()
    torch.testing.assert_close(supervised_affinity_loss(logits, masks, rows, columns), expected)


def test_equation_5_has_two_minima_and_equation_6_one():
    mask = torch.zeros(1, 8, 8, dtype=torch.bool)
    mask[0, 2:6, 3:6] = True
    rows, columns = mask.any(2), mask.any(1)
    right = torch.where(mask, 20.0, -20.0)

    def pairwise(logits: Tensor) -> float:
        return supervised_affinity_loss(logits, mask, rows, columns).item()

    def total(logits: Tensor) -> float:
        return projection_loss(logits, rows, columns).item() + pairwise(logits)

    assert pairwise(right) == pytest.approx(0, abs=1e-6)
    assert pairwise(-right) == pytest.approx(0, abs=1e-6)
    assert total(right) == pytest.approx(0, abs=1e-4)
    assert total(-right) > 0.5


def test_equation_7_by_hand():
    # Dark grays lie on the straight part of both curves: L = 116 * 7.787 * value / 12.92, a = b = 0.
    image = torch.zeros(1, 3, 1, 3)
    image[..., 2] = 0.03
    distance = 116 * 7.787 * 0.03 / 12.92
    for theta in (2.0, 5.0):
        similarity = color_similarity(image, stride=1, theta=theta)[0, 0, 0]
        assert similarity.tolist() == pytest.approx([math.exp(-distance / theta), -1, -1], abs=1e-5)


def test_equation_7_against_scikit_image():
    image = torch.rand(1, 3, 24, 32, generator=torch.Generator().manual_seed(0)) * 0.2 + 0.4
    lab = rgb2lab(F.avg_pool2d(image, 4)[0].permute(1, 2, 0).numpy())
    similarity = color_similarity(image)
    assert similarity.shape == (1, 4, 6, 8)
    for e, (dy, dx) in enumerate(edge_offsets(3, 2)):
        for y, x in product(range(6), range(8)):
            expected = -1.0
            if y + dy < 6 and 0 <= x + dx < 8:
                expected = math.exp(-deltaE_cie76(lab[y, x], lab[y + dy, x + dx]) / 2)
            assert similarity[0, e, y, x].item() == pytest.approx(expected, abs=1e-4)


def test_edges_to_invalid_pixels_are_below_every_threshold():
    image = torch.full((2, 3, 16, 16), 0.5)
    valid = valid_pixels([(16, 16), (15, 8)], 16, 16)
    similarity = color_similarity(image, valid, dilation=1)
    ones = torch.full((4, 4, 4), -1.0)
    for e, (dy, dx) in enumerate(edge_offsets(3, 1)):
        for y, x in product(range(4), range(4)):
            if y + dy < 4 and 0 <= x + dx < 4:
                ones[e, y, x] = 1.0
    torch.testing.assert_close(similarity[0], ones)
    # the second image fills 3 rows (its 4th is cut) and 2 columns of cells
    assert (similarity[1] == 1).nonzero()[:, 1:].amax(0).tolist() == [2, 1]
    assert similarity[1].unique().tolist() == [-1, 1]
    assert (
        similarity[1] == 1
    ).sum().item() == 3 * 1 + 2 * 1 + 2 * 2 + 2 * 1  # right, down-left, down, down-right


def test_edges_between_distant_colors_count_at_threshold_0():
    """exp(-116) is 0 in float32; at threshold 0 the edge from blue to yellow still counts."""
    image = torch.zeros(1, 3, 1, 3)
    image[0, 2, 0, 0] = 1.0  # blue
    image[0, :2, 0, 2] = 1.0  # yellow
    assert color_similarity(image, stride=1)[0, 0, 0].tolist() == [0, -1, -1]


def test_valid_pixels_excludes_bottom_rows():
    assert valid_pixels([(3, 2), (4, 4)], 4, 4).sum((1, 2)).tolist() == [6, 16]
    assert valid_pixels([(3, 2), (4, 4)], 4, 4, bottom_rows=1).sum((1, 2)).tolist() == [4, 12]
    assert valid_pixels([(3, 2), (4, 4)], 4, 4, bottom_rows=[0, 2]).sum((1, 2)).tolist() == [6, 8]
    assert not valid_pixels([(4, 4)], 4, 4, bottom_rows=1)[0, 3].any()
    assert valid_pixels([], 4, 4).shape == (0, 4, 4)


def test_warmup_weight():
    assert [warmup_weight(step / 900) for step in (0, 50, 100, 900)] == pytest.approx([0, 0.5, 1, 1])
    assert warmup_weight(0, fraction=0) == 1
    assert warmup_weight(0.5, fraction=1) == 0.5


def test_equation_8_by_hand():
    logits = make_row(0.9, 0.8, 0.3, 0.4, 0.5)
    edges = torch.zeros(1, 4, 1, 5, dtype=torch.bool)
    edges[0, 0, 0, 0] = True  # only (0, 2), P(same) = .27 + .07
    nll = -math.log(0.34)

    def loss(columns: list[int], normalizer: str, inside: str) -> float:
        box = make_box(5, *columns)
        return affinity_loss(logits, edges, ONE_IMAGE, *box, normalizer=normalizer, inside=inside).item()

    # columns 0, 1 touch (0, 2) and (1, 3), each with one end
    assert loss([0, 1], "edges", "either") == pytest.approx(nll / 2)
    assert loss([0, 1], "edges", "center") == pytest.approx(nll / 2)
    # columns 0 to 2 touch all three edges; seen from their centers: 0-2, 1-3, 2-0, 2-4
    assert loss([0, 1, 2], "edges", "either") == pytest.approx(nll / 3)
    assert loss([0, 1, 2], "edges", "center") == pytest.approx(2 * nll / 4)
    for inside in ("center", "either"):
        assert loss([0, 1, 2], "supervised", inside) == pytest.approx(nll)
        assert loss([1], "supervised", inside) == 0  # no supervised edge at the box


@pytest.mark.slow
@pytest.mark.parametrize("crops", ["boxes", "bands", "whole grid"])
@pytest.mark.parametrize(("size", "dilation"), [(3, 2), (3, 1), (5, 2)])
@pytest.mark.parametrize(("normalizer", "inside"), FORMS)
def test_equals_a_plain_implementation_over_all_neighbors(
    normalizer: str, inside: str, size: int, dilation: int, crops: str, monkeypatch: pytest.MonkeyPatch
):
    logits, *rest = random_case(3, size=size)
    if crops == "bands":
        monkeypatch.setattr(affinity, "MAX_CROP_CELLS", 60)
    if crops == "whole grid":  # as on an accelerator
        n, h, w = (slice(0, size) for size in logits.shape)
        monkeypatch.setattr(affinity, "_crops", lambda index, *_: [affinity._Crop(n, index, h, w, h.stop)])
    logits.requires_grad_()
    ours = affinity_loss(logits, *rest, dilation=dilation, normalizer=normalizer, inside=inside)
    theirs = plain(logits, *rest, size, dilation, normalizer, inside)
    torch.testing.assert_close(ours, theirs)
    (our_gradient,) = torch.autograd.grad(ours, logits)
    (their_gradient,) = torch.autograd.grad(theirs, logits)
    torch.testing.assert_close(our_gradient, their_gradient, rtol=1e-8, atol=1e-12)


@pytest.mark.slow
@pytest.mark.parametrize(("normalizer", "inside"), FORMS)
def test_gradient(normalizer: str, inside: str):
    logits, *rest = random_case(4, n=3, h=5, w=6)
    form = {"normalizer": normalizer, "inside": inside}
    logits.requires_grad_()
    assert torch.autograd.gradcheck(lambda x: affinity_loss(x, *rest, **form), logits)
    masks = torch.rand(logits.shape, generator=torch.Generator().manual_seed(1)) > 0.5
    spans = rest[2:]
    assert torch.autograd.gradcheck(lambda x: supervised_affinity_loss(x, masks, *spans, **form), logits)


@pytest.mark.parametrize(("normalizer", "inside"), FORMS)
@pytest.mark.parametrize("value", [-30.0, 30.0])
def test_all_zeros_and_all_ones_satisfy_equation_8_alone(value: float, normalizer: str, inside: str):
    logits, *rest = random_case(5)
    loss = affinity_loss(torch.full_like(logits, value), *rest, normalizer=normalizer, inside=inside)
    assert loss.item() == pytest.approx(0, abs=1e-9)


def test_equation_6_prefers_the_object_to_all_zeros_and_all_ones():
    # An object of one color on a background of another: edges are supervised within each.
    mask = torch.zeros(1, 12, 12, dtype=torch.bool)
    mask[0, 3:9, 5:7] = mask[0, 5:7, 3:9] = True
    rows, columns = mask.any(2), mask.any(1)
    image = torch.where(mask, 0.9, 0.1)[:, None].expand(1, 3, 12, 12)
    edges = color_similarity(image, stride=1) >= 0.1

    def total(logits: Tensor) -> float:
        pairwise = affinity_loss(logits, edges, ONE_IMAGE, rows, columns)
        return (projection_loss(logits, rows, columns) + pairwise).item()

    right = total(torch.where(mask, 20.0, -20.0))
    assert right == pytest.approx(0, abs=1e-4)
    assert total(torch.full((1, 12, 12), -20.0)) > 1.9  # the projection is violated
    assert total(torch.full((1, 12, 12), 20.0)) > 0.3  # it is violated outside the box, too
    box = box_masks(rows, columns)
    assert total(torch.where(box, 20.0, -20.0)) > 0.3  # the box satisfies it, but splits the background


@pytest.mark.slow
@settings(max_examples=25, deadline=None)
@given(st.integers(0, 1000), st.sampled_from(KEYWORDS))
def test_flipping_changes_nothing(seed: int, form: dict[str, str]):
    logits, _, index, rows, columns = random_case(seed)
    edges = color_similarity(torch.rand(2, 3, 9, 11, generator=torch.Generator().manual_seed(seed)), stride=1)
    loss = affinity_loss(logits, edges >= 1e-4, index, rows, columns, **form)
    flipped = color_similarity(
        torch.rand(2, 3, 9, 11, generator=torch.Generator().manual_seed(seed)).flip(3), stride=1
    )
    other = affinity_loss(logits.flip(2), flipped >= 1e-4, index, rows, columns.flip(1), **form)
    torch.testing.assert_close(loss, other)


@pytest.mark.slow
@settings(max_examples=25, deadline=None)
@given(st.permutations(range(5)), st.sampled_from(KEYWORDS))
def test_the_order_of_instances_does_not_matter(order: list[int], form: dict[str, str]):
    logits, edges, index, rows, columns = random_case(6)
    loss = affinity_loss(logits, edges, index, rows, columns, **form)
    other = affinity_loss(logits[order], edges, index[order], rows[order], columns[order], **form)
    torch.testing.assert_close(loss, other)


def test_a_box_of_one_cell_has_a_gradient():
    logits = torch.randn(1, 6, 6, generator=torch.Generator().manual_seed(0), requires_grad=True)
    rows, columns = box_spans(torch.tensor([[9.0, 9.0, 9.5, 9.5]]), 6, 6, 4)
    affinity_loss(logits, all_edges(6, 6), ONE_IMAGE, rows, columns).backward()
    assert logits.grad[0, 2, 2] != 0


@pytest.mark.parametrize("inside", ["center", "either"])
def test_huge_logits_stay_finite(inside: str):
    logits = torch.tensor([[[1e4, 60.0, -1e4, -60.0, 0.0]]], requires_grad=True)
    loss = affinity_loss(logits, all_edges(1, 5), ONE_IMAGE, *make_box(5, *range(5)), inside=inside)
    # Ends at x and -x: P(same) = 2 e^-x. (1e4, -1e4) counts as (80, -80). (-1e4, 0): P(same) = 1/2.
    assert loss.item() == pytest.approx((80 + 60 - math.log(2)) / 3, rel=1e-6)
    loss.backward()
    assert logits.grad.isfinite().all()
    # slopes of one half: either end of the first two edges may give way, of the last only the undecided one
    assert logits.grad[0, 0].tolist() == pytest.approx([1 / 6, 1 / 6, -1 / 6, -1 / 6, 1 / 6], rel=1e-4)


def test_half_precision_is_converted():
    logits, *rest = random_case(7)
    half = logits.bfloat16().requires_grad_()
    loss = affinity_loss(half, *rest)
    assert loss.dtype == torch.float32
    torch.testing.assert_close(loss, affinity_loss(half.detach().float(), *rest))
    loss.backward()
    assert half.grad.dtype == torch.bfloat16


def test_no_instances_give_a_differentiable_zero():
    logits, edges, index, rows, columns = random_case(8)
    none = logits[:0].requires_grad_()
    for loss in (
        affinity_loss(none, edges, index[:0], rows[:0], columns[:0]),
        supervised_affinity_loss(none, logits[:0] > 0, rows[:0], columns[:0]),
    ):
        assert loss.item() == 0
        loss.backward()
        assert none.grad.shape == none.shape
