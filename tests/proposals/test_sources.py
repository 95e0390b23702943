"""Superpixels, hierarchies over them, groups of regions, and the segments of an image from every source."""

from itertools import combinations

import numpy as np
import pytest
from skimage.color import rgb2lab

from boxel.data.images import read_image
from boxel.data.samples import sample_images
from boxel.evaluation.proposals import candidate_ious
from boxel.proposals import propose
from boxel.proposals.candidates import enclosing_boxes
from boxel.proposals.hierarchies import Hierarchy, hierarchies
from boxel.proposals.mcg import group_regions
from boxel.proposals.selection import Pool, fill_holes, select_best, select_fitting
from boxel.proposals.selective_search import (
    COLOR_BINS,
    ORIENTATIONS,
    SCALES,
    TEXTURE_BINS,
    _histograms,
    _texture_bins,
)
from boxel.proposals.sources import GENERATORS
from boxel.proposals.superpixels import Regions, build_regions, gradient, superpixels
from boxel.utils.errors import BoxelError

COLORS = ((200, 60, 50), (40, 90, 200), (240, 220, 80), (60, 160, 70))


def photo(height: int = 90, width: int = 120) -> tuple[np.ndarray, np.ndarray]:
    """A disc, a bar and a disc of two halves on gray, all with noise: (H, W, 3) image and (3, H, W) masks."""
    random = np.random.default_rng(0)
    y, x = np.mgrid[:height, :width]
    disc = np.hypot(x - 30, y - 30) < 18
    bar = (abs(x - 60) < 45) & (abs(y - 75) < 8)
    halves = np.hypot(x - 90, y - 30) < 20
    image = np.full((height, width, 3), 128.0)
    image[disc], image[bar] = COLORS[0], COLORS[1]
    image[halves & (x < 90)], image[halves & (x >= 90)] = COLORS[2], COLORS[3]
    image += 6 * random.standard_normal(image.shape)
    return image.clip(0, 255).astype(np.uint8), np.stack([disc, bar, halves])


def grid() -> Regions:
    """Two rows of three regions: those above are 2 pixels high, those below 1, all 3 wide."""
    return build_regions(np.repeat(np.repeat([[0, 1, 2], [3, 4, 5]], [2, 1], axis=0), 3, axis=1))


@pytest.fixture(scope="module")
def seen() -> tuple[np.ndarray, np.ndarray, Regions]:
    image = photo()[0]
    lab = rgb2lab(image).astype(np.float32)
    return image, lab, superpixels(lab, 150)


@pytest.fixture(scope="module")
def tree(seen) -> Hierarchy:
    return next(iter(hierarchies(*seen)))


def test_regions_by_hand() -> None:
    found = grid()
    assert found.labels.tolist() == [[0] * 3 + [1] * 3 + [2] * 3] * 2 + [[3] * 3 + [4] * 3 + [5] * 3]
    assert found.sizes.tolist() == [6, 6, 6, 3, 3, 3]
    assert found.boxes[1].tolist() == [3, 0, 6, 2] and found.boxes[5].tolist() == [6, 2, 9, 3]
    lengths = {
        tuple(sorted(edge)): length for edge, length in zip(found.edges.tolist(), found.lengths, strict=True)
    }
    assert lengths == {(0, 1): 2, (1, 2): 2, (3, 4): 1, (4, 5): 1, (0, 3): 3, (1, 4): 3, (2, 5): 3}
    values = np.arange(27, dtype=float).reshape(3, 9)
    assert found.mean(values)[:, 0].tolist() == [5.5, 8.5, 11.5, 19, 22, 25]
    assert found.mean(np.stack([values, 2 * values], -1))[4].tolist() == [22, 44]
    # Between 0 and 1 the four pixels beside their border are 2, 3, 11 and 12.
    between = dict(zip(map(tuple, np.sort(found.edges).tolist()), found.between(values), strict=True))
    assert between[0, 1] == 7


def test_superpixels_keep_to_edges(seen) -> None:
    """There are as many as requested, and hardly any lies on two objects."""
    _, _, found = seen
    assert len(found.sizes) == 150 and found.sizes.sum() == found.labels.size
    for mask in photo()[1]:
        share = np.bincount(found.labels[mask], minlength=150)
        assert np.minimum(share, found.sizes - share).sum() < 0.06 * mask.sum()


def test_fewer_basins_than_superpixels_are_all_kept() -> None:
    found = superpixels(np.zeros((12, 12, 3), np.float32), 50)
    assert len(found.sizes) == 1 and len(found.edges) == 0


def test_gradient_by_hand() -> None:
    """A ramp of 2 per pixel across and 1 down in one channel: Sobel sums eight differences over two pixels."""
    y, x = np.mgrid[:30, :30].astype(np.float32)
    ramp = np.stack([2 * x + y, 0 * x, 0 * x], -1)
    np.testing.assert_allclose(gradient(ramp, 1.0)[8:-8, 8:-8], 8 * 5**0.5, rtol=1e-4)


def test_hierarchies_are_consistent(seen) -> None:
    _, _, own = seen
    trees = list(hierarchies(*seen))
    assert len(trees) == 9
    for found in trees:
        wanted = np.zeros((len(found.parents), len(own.sizes)), dtype=bool)
        wanted[: len(own.sizes)] = np.eye(len(own.sizes), dtype=bool)
        for node, parent in enumerate(found.parents[:-1]):
            wanted[parent] |= wanted[node]
        np.testing.assert_array_equal(found.sets(np.arange(len(wanted))), wanted)
        np.testing.assert_allclose(found.sizes, wanted @ own.sizes)
        assert wanted[-1].all()


def strips(*colors: tuple[int, int, int], rough: int = 0) -> np.ndarray:
    """Strips of 20, 20 and 60 columns, the first with a checkerboard of a contrast."""
    pixels = np.repeat(colors, (20, 20, 60), axis=0)[None] + np.random.default_rng(0).normal(
        0, 2, (60, 100, 3)
    )
    pixels[:, :20] += rough * (2 * (np.indices((60, 20)).sum(0) % 2) - 1)[..., None]
    return pixels.clip(0, 255).astype(np.uint8)


def top_split(tree: Hierarchy, own: Regions) -> np.ndarray:
    """Return (W,) bool, the columns most of which lie in the same child of the root as the first column."""
    count = len(tree.parents)
    half = tree.sets(np.flatnonzero(tree.parents[: count - 1] == count - 1))[0]
    columns = half[own.labels].mean(0) > 0.5
    return columns == columns[0]


@pytest.mark.parametrize(
    ("image", "separating"),
    [
        (strips((20, 20, 20), (220, 220, 220), (235, 235, 235)), range(9)),
        (strips((190, 60, 60), (60, 125, 60), (60, 135, 60)), range(9)),
        (strips((120, 120, 120), (120, 120, 120), (120, 120, 120), rough=90), [4]),
    ],
    ids=["dark beside bright", "red beside green", "rough beside smooth"],
)
def test_each_hierarchy_separates_what_its_cues_tell_apart(image, separating) -> None:
    """By their places alone the first two strips belong together; color, edges and texture part the first one."""
    own = build_regions(np.repeat([0, 1, 2], (20, 20, 60))[None].repeat(60, 0))
    first = np.arange(100) < 20
    trees = list(hierarchies(image, rgb2lab(image).astype(np.float32), own))
    for number in separating:
        np.testing.assert_array_equal(top_split(trees[number], own), first, err_msg=str(number))
    if len(separating) < len(trees):
        assert not (top_split(trees[0], own) == first).all()
    image, own = image[:, ::-1].copy(), build_regions(own.labels[:, ::-1])  # no order of the strips decides
    trees = list(hierarchies(image, rgb2lab(image).astype(np.float32), own))
    for number in separating:
        np.testing.assert_array_equal(top_split(trees[number], own), ~first[::-1], err_msg=str(number))


def test_groups_are_all_unions_of_neighbors(seen, tree) -> None:
    """Compare with a search of all pairs, triplets and quadruplets of the highest regions."""
    _, _, own = seen
    top = (9, 7, 6)
    found = group_regions(tree, own, top)
    count = len(tree.parents)
    sets = tree.sets(np.arange(count))
    touching = {tuple(sorted(edge)) for edge in own.edges.tolist()}

    def touch(a: int, b: int) -> bool:
        return any(
            (min(p, q), max(p, q)) in touching for p in sets[a].nonzero()[0] for q in sets[b].nonzero()[0]
        )

    def linked(nodes: tuple[int, ...]) -> bool:
        """Whether all are connected through adjacent regions."""
        reached, grown = {nodes[0]}, True
        while grown:
            new = {n for n in nodes if n not in reached and any(touch(n, r) for r in reached)}
            grown, reached = bool(new), reached | new
        return len(reached) == len(nodes)

    wanted = {(node,) for node in range(count)}
    for arity, kept in enumerate(top, start=2):
        for nodes in combinations(range(count - kept, count), arity):
            apart = not any((sets[a] & sets[b]).any() for a, b in combinations(nodes, 2))
            if apart and linked(nodes):
                wanted.add(nodes)
    assert sorted(tuple(sorted(set(nodes))) for nodes in found.tolist()) == sorted(wanted)


@pytest.mark.slow
@pytest.mark.parametrize("source", GENERATORS)
def test_pools_are_consistent_with_their_sets(seen, source) -> None:
    """Box and size of each segment are those of its set."""
    pool = GENERATORS[source](*seen)
    own = seen[2]
    indices = np.random.default_rng(0).permutation(len(pool.sizes))[:300]
    sets = pool.sets(indices)
    np.testing.assert_allclose(sets @ own.sizes, pool.sizes[indices])
    for members, box in zip(sets, pool.boxes[indices], strict=True):
        rows, columns = members[own.labels].nonzero()
        assert box.tolist() == [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]


@pytest.mark.slow
@pytest.mark.parametrize("source", GENERATORS)
@pytest.mark.parametrize("given", [False, True], ids=["no boxes", "boxes"])
def test_objects_are_found(source, given) -> None:
    image, masks = photo()
    boxes = [(c.min(), r.min(), c.max() + 1, r.max() + 1) for r, c in (mask.nonzero() for mask in masks)]
    found = propose(image, source, np.array(boxes) if given else None, 300)
    assert found.superpixels.shape == masks.shape[1:] and len(found) <= 300
    for mask in masks:
        ious = [(mask & own).sum() / (mask | own).sum() for own in map(found.mask, range(len(found)))]
        assert max(ious) > 0.85
        if given:  # each box has its turn
            assert max(ious[:30]) > 0.75


@pytest.mark.slow
def test_large_images_are_processed_at_a_smaller_size() -> None:
    image, masks = photo()
    large = image.repeat(8, 0).repeat(8, 1)
    found = propose(large, count=200)
    assert found.superpixels.shape == large.shape[:2]
    disc = masks[0].repeat(8, 0).repeat(8, 1)
    assert max((disc & found.mask(n)).sum() / (disc | found.mask(n)).sum() for n in range(len(found))) > 0.85


def test_an_unknown_source_is_refused() -> None:
    with pytest.raises(BoxelError, match=r"source is mgc; .* Did you mean 'mcg'"):
        propose(np.zeros((8, 8, 3), np.uint8), "mgc")


def test_an_image_of_one_color_is_one_segment() -> None:
    for source, count in (("mcg", 1), ("selective-search", 1), ("gop", 0)):
        assert len(propose(np.zeros((20, 30, 3), np.uint8), source)) == count


@pytest.mark.parametrize("source", ["mcg", "selective-search", "gop"])
@pytest.mark.parametrize("size", [(20, 30), (1, 1)])
def test_an_image_of_one_superpixel_has_at_most_one_segment_for_its_box(source, size) -> None:
    candidates = propose(np.zeros((*size, 3), np.uint8), source, boxes=[[0, 0, *size[::-1]]])
    assert len(candidates) == (source != "gop")
    assert all(candidates.mask(segment).all() for segment in range(len(candidates)))


def test_holes_of_segments_are_filled() -> None:
    image = np.full((60, 80, 3), 60, dtype=np.uint8)
    y, x = np.mgrid[:60, :80]
    radius = np.hypot(y - 30, x - 40)
    ring, disc = (radius < 22) & (radius > 10), radius < 22
    image[ring] = (220, 40, 40)
    found = propose(image, boxes=[[18, 8, 62, 52]], count=200)
    best = candidate_ious(found, np.stack([ring, disc])).max(0)
    assert best[1] > 0.9 > best[0]


def test_holes_are_filled_and_bays_are_not() -> None:
    """A ring around one region encloses it; a horseshoe does not, nor does a ring at the image's border."""
    labels = np.zeros((7, 9), dtype=int)
    labels[1:6, 1:6], labels[2:5, 2:5], labels[3, 3] = 1, 2, 3
    labels[1:6, 6:8] = 4
    own = build_regions(labels)
    number = {int(labels[own.labels == new][0]): new for new in range(5)}

    def of(*names: int) -> np.ndarray:
        return np.isin(np.arange(5), [number[n] for n in names])

    given = np.stack([of(1), of(1, 2), of(2), of(0), of(1, 4), of(3)])
    wanted = np.stack([of(1, 2, 3), of(1, 2, 3), of(2, 3), of(0, 1, 2, 3, 4), of(1, 2, 3, 4), of(3)])
    np.testing.assert_array_equal(fill_holes(own, given), wanted)
    horseshoe = build_regions(np.where(labels == 2, np.where(np.arange(9) > 3, 1, 2), labels))
    ring = np.bincount(horseshoe.labels[1], minlength=len(horseshoe.sizes)) > 3
    assert fill_holes(horseshoe, ring[None]).sum() >= 1


@pytest.mark.slow
def test_segments_are_clipped_to_their_box(seen) -> None:
    _, _, own = seen
    box = np.array([12.0, 12, 48, 30])  # the upper half of the disc
    for members in select_fitting(GENERATORS["mcg"](*seen), own, box[None], 20):
        for superpixel in members.nonzero()[0]:
            rows, columns = (own.labels == superpixel).nonzero()
            inside = (columns >= 12) & (columns < 48) & (rows >= 12) & (rows < 30)
            assert inside.mean() > 0.5


def test_the_most_promising_segments_are_selected() -> None:
    """Six regions of a grid, which do not duplicate each other; those of the lowest order come first."""
    own = grid()
    order = np.array([3.0, 0.5, 4, 2, 5, 1])
    pool = Pool(own.boxes.astype(np.int64), own.sizes, order, lambda indices: np.eye(6, dtype=bool)[indices])
    assert select_best(pool, 6).argmax(1).tolist() == [1, 5, 3, 0, 2, 4]
    assert select_best(pool, 2).argmax(1).tolist() == [1, 5]


def test_segments_that_fit_a_box_best_come_first() -> None:
    """The box has the two left regions above; the next ones fit it with IoUs of 2/3, 2/3, 1/2 and 1/3."""
    own = grid()
    sets = np.array(
        [[1, 0, 0, 1, 0, 0], [0, 1, 1, 0, 0, 0], [1, 1, 1, 0, 0, 0], [1, 1, 0, 0, 0, 0]], dtype=bool
    )
    boxes = enclosing_boxes(own.boxes, sets).astype(np.int64)
    pool = Pool(boxes, sets @ own.sizes, np.arange(4), lambda indices: sets[indices])
    found = select_fitting(pool, own, np.array([[0.0, 0, 6, 2]]), 3)
    assert found[0].tolist() == sets[3].tolist()  # of the three it is also what is left of the third one
    assert found[1].sum() == 1 and len(found) == 3
    singles = Pool(
        own.boxes.astype(np.int64), own.sizes, np.arange(6), lambda indices: np.eye(6, dtype=bool)[indices]
    )
    assert select_fitting(singles, own, own.boxes[[4]].astype(float), 1).argmax(1).tolist() == [4]


def test_selective_search_has_the_published_settings_of_its_fast_version() -> None:
    assert (SCALES, COLOR_BINS, TEXTURE_BINS, ORIENTATIONS) == ((50, 100), 25, 10, 8)


def test_textures_are_derivatives_in_eight_directions() -> None:
    """Ramps of 0.1 per pixel, to the right in the second channel and down in the third: 2.3 bins, 1.6 at 45 degrees."""
    space = np.zeros((9, 9, 3), dtype=np.float32)
    space[..., 1] = 0.1 * np.arange(9)
    space[..., 2] = 0.1 * np.arange(9)[:, None]
    middle = _texture_bins(space)[4, 4].reshape(8, 3)
    assert middle[:, 1].tolist() == [2, 1, 0, 0, 0, 0, 0, 1] and not middle[:, 0].any()
    assert middle[:, 2].tolist() == [0, 1, 2, 1, 0, 0, 0, 0]
    own = build_regions(np.repeat([0, 1], (4, 5))[None].repeat(9, 0))
    shares = _histograms(own, _texture_bins(space), TEXTURE_BINS)
    assert shares.shape == (2, 240) and shares.sum(1) == pytest.approx(1)
    inside = shares[1].reshape(8, 3, 10)[0, 1]  # to the right, second channel
    assert inside.argmax() == 2 and inside.sum() == pytest.approx(1 / 24)


@pytest.mark.slow
def test_mcg_takes_high_regions_first_and_groups_of_up_to_four_after_single_ones(seen) -> None:
    _, _, own = seen
    pool = GENERATORS["mcg"](*seen)
    assert pool.sizes[pool.order == 0].tolist() == [own.sizes.sum()] * 9  # the roots
    nodes = group_regions(next(hierarchies(*seen)), own)
    arities = np.array([len(set(row)) for row in nodes.tolist()])
    assert {*arities.tolist()} == {1, 2, 3, 4}
    first = pool.order[: len(nodes)]  # of the first hierarchy
    assert first[arities == 1].max() < first[arities > 1].min()
    singles = np.flatnonzero(arities == 1)
    assert (np.diff(first[singles]) < 0).all()  # later nodes are higher


def test_selective_search_and_gop_order_their_segments(seen) -> None:
    """The roots of selective search come first; gop takes turns among its seeds."""
    _, _, own = seen
    pool = GENERATORS["selective-search"](*seen)
    assert pool.sizes[pool.order == 0].tolist() == [own.sizes.sum()] * 8
    pool = GENERATORS["gop"](*seen)
    firsts = np.argsort(pool.order, kind="stable")[:300]
    seeds = firsts // 20  # 20 level sets per distance
    assert len({*seeds.tolist()}) == 300 and (firsts % 20 == 0).all()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("source", "floor"), [("mcg", (0.55, 0.7)), ("selective-search", (0.55, 0.7)), ("gop", (0.35, 0.6))]
)
def test_few_segments_find_the_objects_of_photographs(source, floor) -> None:
    """Mean IoU of nine objects with the best of 100 and of 1000 segments, without their boxes."""
    data = sample_images()
    few = [image for image in range(len(data)) if len(data.instances_in(image)) < 9]
    found = []
    for image in few:
        candidates = propose(read_image(data.image_path(image)), source, count=1000)
        masks = np.stack([data.mask(instance) for instance in data.instances_in(image)]).astype(bool)
        ious = candidate_ious(candidates, masks)
        found.append(np.stack([ious[:100].max(0), ious.max(0)], 1))
    assert (np.concatenate(found).mean(0) > floor).all(), np.concatenate(found).mean(0)


@pytest.mark.slow
def test_near_duplicates_are_removed(seen) -> None:
    sets = select_best(GENERATORS["mcg"](*seen), 100)
    assert len(np.unique(sets, axis=0)) == len(sets) == 100


@pytest.mark.slow
def test_boxes_without_segments(seen) -> None:
    """No box is given, or one that contains no superpixel."""
    pool, own = GENERATORS["mcg"](*seen), seen[2]
    assert len(select_fitting(pool, own, np.zeros((0, 4)), 10)) == 0
    assert len(select_fitting(pool, own, np.array([[5.2, 5.2, 5.4, 5.4]]), 10)) == 0
