"""Which masks to look at next."""

from dataclasses import replace

import numpy as np
import pytest

from boxel.data import Annotations
from boxel.data.suspects import mark_suspect
from boxel.labeling import choose_next, label, select_next, take_checked
from boxel.utils.errors import BoxelError


@pytest.fixture
def masks(make_set):
    """40 masks in 20 images: discs, the five radii of which repeat, and corners."""
    return label(make_set(20), teacher="ellipse")


def with_quality(data, quality) -> Annotations:
    return replace(data, quality=np.broadcast_to(quality, len(data.ids)).astype(np.float32))


def instances(chosen):
    return [one.instance for one in chosen]


def test_doubtful_masks_come_first_and_say_why(masks):
    quality = np.where(np.arange(40) % 2 == 0, 0.95, 0.9)
    quality[[4, 9]] = 0.3, 0.7
    chosen = choose_next(with_quality(masks, quality), 2)
    assert instances(chosen) == [4, 9]
    assert [one.reason.partition(",")[0] for one in chosen] == ["low quality", "in doubt"]
    masks.extras[6] = mark_suspect(None, "two objects")
    chosen = choose_next(with_quality(masks, 0.9), 1)
    assert chosen[0].instance == 6 and chosen[0].reason.startswith("its box looks wrong: two objects")
    assert choose_next(with_quality(masks, np.nan), 1)[0].reason.startswith("quality unknown, ")


def test_choices_cover_kinds_instead_of_repeating_one(masks):
    """Of equally doubtful masks, both classes are chosen, and the more numerous kind first."""
    small = with_quality(masks.select_instances([*range(0, 40, 2), 1, 3]), 0.6)
    chosen = choose_next(small, 2)
    assert small.labels[instances(chosen)].tolist() == [0, 1]
    assert "masks like it" in chosen[0].reason


def test_what_looks_the_same_is_listed_once(masks, tmp_path):
    images = masks.root
    for image in range(1, 20):
        (images / masks.paths[image]).write_bytes((images / masks.paths[0]).read_bytes())
    boxes = masks.boxes.copy()
    boxes[::2], boxes[1::2] = boxes[0], boxes[1]
    same = with_quality(replace(masks, boxes=boxes), 0.4)
    assert len(choose_next(same, 10)) <= 2  # the disc, and the corner if it has any contrast
    own = same.source.copy()
    own[0] = None
    assert 0 not in same.labels[instances(choose_next(replace(same, source=own), 10))]


def test_masks_that_all_look_like_a_corrected_one_are_an_error(masks):
    for path in masks.paths[1:]:
        (masks.root / path).write_bytes((masks.root / masks.paths[0]).read_bytes())
    discs = masks.select_instances(np.arange(0, 40, 2))
    boxes, source = np.broadcast_to(discs.boxes[0], discs.boxes.shape), discs.source.copy()
    source[0] = None
    same = replace(discs, boxes=boxes, source=source)
    with pytest.raises(
        BoxelError, match="each mask that you have not corrected looks like one that you have"
    ):
        choose_next(same)
    assert len(choose_next(same, random=True)) == 19
    tiny = replace(same, boxes=np.broadcast_to([0.0, 0, 15, 40], boxes.shape))
    with pytest.raises(BoxelError, match="sides of at least 16 pixels; choose without `random`"):
        choose_next(tiny, random=True)


def test_masks_of_the_user_and_boxes_without_a_mask_are_not_listed(masks):
    source, segmentations = masks.source.copy(), masks.segmentations.copy()
    source[:20], segmentations[20:30] = None, None
    trusted = np.arange(40) < 35
    data = with_quality(replace(masks, source=source, segmentations=segmentations, trusted=trusted), 0.5)
    assert sorted(instances(choose_next(data, 40, random=True))) == list(range(30, 40))
    assert set(instances(choose_next(data, 40))) <= set(range(30, 40))
    with pytest.raises(BoxelError, match="no masks by a teacher that you have not corrected"):
        choose_next(data.select_instances(range(30)))


def test_a_random_draw_is_uniform_repeatable_and_grows(masks):
    first = instances(choose_next(masks, 10, random=True))
    assert first == instances(choose_next(masks, 20, random=True))[:10]
    assert first != instances(choose_next(masks, 10, random=True, seed=1))
    counts = np.zeros(40)
    for seed in range(300):
        counts[instances(choose_next(masks, 10, random=True, seed=seed))] += 1
    assert np.abs(counts - 75).max() < 5 * np.sqrt(300 * 0.25 * 0.75)


def test_small_boxes_are_not_drawn_for_a_guarantee(masks):
    boxes = masks.boxes.copy()
    boxes[:30, 3] = boxes[:30, 1] + 15
    assert len(choose_next(replace(masks, boxes=boxes), 40, random=True)) == 10


def test_images_that_cannot_be_read_cost_the_colors_only(masks, logged):
    quality = np.full(40, 0.9)
    quality[7] = 0.2
    (masks.root / masks.paths[3]).unlink()
    assert choose_next(with_quality(masks, quality), 1)[0].instance == 7
    assert any(
        "1 image cannot be read, so colors and look-alikes in them do not count" in one for one in logged
    )


def test_the_selection_holds_what_to_correct_and_other_objects_as_boxes(masks):
    chosen = choose_next(masks, 3, random=True)
    found = select_next(masks, chosen)
    ids = {masks.ids[one.instance] for one in chosen}
    assert {id for id, mask in zip(found.ids, found.has_mask, strict=True) if mask} == ids
    assert len(found) == len({masks.image_index[one.instance] for one in chosen})
    assert len(found.ids) == 2 * len(found) and set(found.source) == {None} and found.trusted.all()
    assert np.isnan(found.quality).all() and np.isnan(found.areas[~found.has_mask]).all()


def test_corrected_masks_are_taken_back_and_not_drawn_again(masks):
    corrected = select_next(masks, choose_next(masks, 10, random=True))
    data, checked = take_checked(masks, replace(corrected, root="elsewhere"))
    assert len(checked) == 10 and data.trusted.all() and {data.source[row] for row in checked} == {None}
    chosen = choose_next(data, 40, random=True)
    assert len(chosen) == 30 and not set(instances(chosen)) & set(checked)
    both = select_next(data, chosen[:5], checked)
    assert both.has_mask.sum() == 15
    with pytest.raises(BoxelError, match="no mask in it has the image and the id of one in"):
        take_checked(masks, replace(corrected, paths=[f"other{k}.png" for k in range(len(corrected))]))


def test_corrected_masks_go_to_the_image_in_their_folder(masks):
    two = masks.select_images([0, 1])
    same = replace(two, paths=["a/x.png", "b/x.png"], ids=[1, 2, 1, 2])
    corrected = same.keep_masks([3])
    assert take_checked(same, corrected)[1] == [3]
    assert take_checked(same, corrected.select_images([1]))[1] == [3]
    flat = replace(corrected, paths=["a_x.png", "b_x.png"])
    assert take_checked(same, flat)[1] == [3]
