"""Decisions of a reviewer and the dataset that they make."""

import logging
from dataclasses import replace
from pathlib import Path

import msgspec
import numpy as np
import pytest

from boxel.cli import main
from boxel.data import Annotations, Category, read, write
from boxel.data.suspects import find_suspects, mark_suspect
from boxel.labeling import label
from boxel.masks.rle import decode, encode_in_box
from boxel.review import Conflict, DecisionStore, Review, Selection, apply_decisions, decisions_path, select
from boxel.review.editing import brush
from boxel.review.sample import guarantee_so_far
from boxel.utils.errors import BoxelError


@pytest.fixture()
def review(scenes: Annotations, tmp_path: Path) -> Review:
    return Review(scenes, DecisionStore(tmp_path / "masks.review.sqlite"))


def again(review: Review, data: Annotations | None = None) -> Review:
    """The review as the next session finds it."""
    review.store.close()
    return Review(review.data if data is None else data, DecisionStore(review.store.path))


def test_each_state_has_its_meaning_in_the_dataset(review: Review) -> None:
    for row, state in enumerate(("accepted", "rejected", "ignored", "deleted")):
        review.decide(row, 0, state=state)

    found, before = review.apply(), review.data

    assert found.ids == [before.ids[0], before.ids[1], before.ids[2], *before.ids[4:]]
    assert found.trusted[:3].tolist() == [True, False, True]
    assert found.source[:4].tolist() == [None, "ellipse", "ellipse", "ellipse"]
    assert found.iscrowd[:4].tolist() == [False, False, True, False]
    assert np.isnan(found.quality[0]) and found.quality[1] == before.quality[1]
    assert (
        found.segmentations[0] == before.segmentations[0]
    )  # the same text, not another code of the same mask


def test_objects_without_a_decision_stay_bit_for_bit(review: Review) -> None:
    review.decide(0, 0, state="accepted")
    found = review.apply().select_instances(range(1, len(review)))
    before = review.data.select_instances(range(1, len(review)))
    for name in ("boxes", "labels", "quality", "areas", "trusted", "iscrowd"):
        np.testing.assert_array_equal(getattr(found, name), getattr(before, name))
    assert found.segmentations.tolist() == before.segmentations.tolist()
    assert found.extras.tolist() == before.extras.tolist()


def test_decisions_last_from_session_to_session(review: Review) -> None:
    names = review.names
    review.decide(0, 0, state="rejected")
    review.decide(0, 1, state="open", category=names[1])
    review.decide(1, 0, state="ignored")

    review.decide(1, 1, state="deleted")

    later = again(review)

    assert [later.entry(row).version for row in range(3)] == [2, 2, 0]
    assert names[later.labels[0]] == names[1]
    assert [later.entry(row).decision.state for row in range(3)] == ["open", "deleted", "open"]


def test_undo_and_redo_are_versions_more(review: Review) -> None:
    before = review.rle(0)
    drawn = brush(before, (96, 128), [(1.5, 1.5)], 1, add=True)
    assert review.decide(0, 0, state="accepted", mask=drawn, maker="you").version == 1
    assert review.restore(0, 1, to=0).version == 2
    assert review.rle(0) == before and review.entry(0).decision.state == "open"
    assert review.restore(0, 2, to=1).version == 3
    assert review.rle(0) == drawn and review.entry(0).decision.state == "accepted"
    assert [entry.version for entry in review.store.history(("000000.png", review.ids[0]))] == [1, 2, 3]


def test_a_decision_about_an_older_version_is_refused(review: Review) -> None:
    review.decide(0, 0, state="accepted")
    with pytest.raises(Conflict, match="was changed meanwhile; look at it again"):
        review.decide(0, 0, state="rejected")
    assert review.entry(0).decision.state == "accepted"


def test_two_processes_do_not_overwrite_each_other(review: Review) -> None:
    other = Review(review.data, DecisionStore(review.store.path))
    review.decide(0, 0, state="accepted")
    with pytest.raises(Conflict):
        other.decide(0, 0, state="rejected")
    assert other.entry(0).decision.state == "accepted"  # what the other process sees now
    assert other.decide(0, 1, state="rejected").version == 2


def test_a_wrong_class_names_the_nearest(review: Review) -> None:
    name = review.names[0]
    with pytest.raises(BoxelError, match=f"Did you mean '{name}'"):
        review.decide(0, 0, category=name + "x")


def test_accepting_a_changed_mask_again_in_the_file_is_still_accepted(review: Review, tmp_path: Path) -> None:
    review.decide(
        0, 0, state="accepted", box=(1.0, 1.0, 9.0, 9.0), mask=brush(None, (96, 128), [(5, 5)], 3, add=True)
    )
    write(review.apply(), tmp_path / "masks.json")

    later = again(review, read(tmp_path / "masks.json", review.data.root))

    assert later.entry(0).decision.state == "accepted"


def test_a_mask_that_was_made_again_is_open_again(review: Review, caplog: pytest.LogCaptureFixture) -> None:
    review.decide(0, 0, state="accepted")
    review.decide(1, 0, state="accepted", mask=brush(None, (96, 128), [(5, 5)], 3, add=True), maker="you")
    segmentations = review.data.segmentations.copy()
    segmentations[[0, 1]] = segmentations[[1, 0]]
    with caplog.at_level(logging.WARNING):
        later = again(review, replace(review.data, segmentations=segmentations))

    assert [later.entry(row).decision.state for row in (0, 1)] == ["open", "accepted"]
    assert "1 object has changed since you decided on them; look at them again" in caplog.text
    assert later.decide(0, later.entry(0).version, state="rejected").version == 2


def test_added_objects_come_last_and_stay(review: Review) -> None:
    row = review.add(2, review.names[0], (4.0, 5.0, 20.0, 25.0))
    assert row == len(review.data.ids)

    later = again(review)
    found = later.apply()

    assert len(later) == row + 1 and found.ids[row] == max(review.data.ids) + 1
    assert found.image_index[row] == 2 and found.boxes[row].tolist() == [4, 5, 20, 25]
    assert not found.has_segmentation[row] and found.trusted[row]


def test_objects_of_a_class_that_was_renamed_can_be_decided_on_again(review: Review) -> None:
    review.decide(0, 0, state="accepted")
    review.add(0, review.names[0], (1, 2, 20, 30), state="accepted")
    categories = [replace(category, name=f"{category.name}s") for category in review.data.categories]

    later = again(review, replace(review.data, categories=categories))

    assert len(later) == len(review.data.ids)  # what was added is of a class that is not there any more
    assert later.entry(0).decision.state == "open"
    assert later.decide(0, 1, state="rejected").version == 2
    with pytest.raises(BoxelError, match="there is no class"):
        later.restore(0, 2, to=1)


def test_an_added_object_is_undone_and_comes_back(review: Review) -> None:
    row = review.add(2, review.names[0], (4.0, 5.0, 20.0, 25.0))
    assert review.restore(row, 1, to=0).decision.state == "deleted"
    assert len(review.apply().ids) == len(review.data.ids)
    later = again(review)
    assert len(later.apply().ids) == len(review.data.ids)
    assert later.restore(row, 2, to=1).decision.state == "open"
    assert len(later.apply().ids) == len(review.data.ids) + 1


def test_acceptance_takes_the_mark_of_a_suspect_box_away(scenes: Annotations, tmp_path: Path) -> None:
    extras = scenes.extras.copy()
    extras[0] = extras[1] = mark_suspect(b'{"track_id":4}', "empty")
    review = Review(replace(scenes, extras=extras), DecisionStore(tmp_path / "a.sqlite"))
    review.decide(0, 0, state="accepted")
    review.decide(1, 0, state="ignored")
    found = review.apply()
    assert find_suspects(found) == {"empty": [1]} and found.extras[0] == b'{"track_id":4}'


def test_export_by_the_command(masks: Path, scenes: Annotations, capsys: pytest.CaptureFixture[str]) -> None:
    review = Review(read(masks, scenes.root), DecisionStore(decisions_path(masks)))
    review.decide(0, 0, state="accepted")
    review.decide(1, 0, state="deleted")
    review.store.close()
    out = masks.parent / "reviewed.json"

    assert main(["review", str(masks), "--images", str(scenes.root), "--export", str(out)]) == 0

    count = len(scenes.ids)
    assert f"objects: {count - 2} open, 1 accepted, 1 deleted; " in capsys.readouterr().out
    found = read(out, scenes.root)
    assert len(found.ids) == count - 1 and found.source[0] is None and found.trusted[0]
    np.testing.assert_array_equal(decode(found.rle(0)), decode(scenes.rle(0)))


def test_export_without_decisions_names_the_file(masks: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["review", str(masks), "--export", str(masks.parent / "out.json")]) == 1
    assert "masks.review.sqlite: there is no such file; review the dataset first" in capsys.readouterr().err
    assert not (masks.parent / "masks.review.sqlite").exists()


@pytest.mark.parametrize("content", [b"", b"no database at all" * 100])
def test_a_damaged_file_of_decisions_is_refused_and_kept(
    scenes: Annotations, tmp_path: Path, content: bytes
) -> None:
    file = tmp_path / "masks.review.sqlite"
    file.write_bytes(content)
    if content:
        with pytest.raises(BoxelError, match=r"is not a file of decisions, or damaged"):
            apply_decisions(scenes, file)
        assert file.read_bytes() == content
    else:  # as SQLite leaves it before the first decision
        assert len(apply_decisions(scenes, file)[0].ids) == len(scenes.ids)


def decide_in_random_order(review: Review, count: int) -> list[int]:
    rows = select(review, Selection(order="random")).tolist()[:count]
    for row in rows:
        review.decide(row, review.entry(row).version, state="accepted")
    return rows


def test_a_random_sample_guarantees_the_rest(tmp_path: Path) -> None:
    review = Review(many_masks(400), DecisionStore(tmp_path / "a.sqlite"))
    assert guarantee_so_far(review, 0.8) == (None, 29)
    decide_in_random_order(review, 60)
    found, missing = guarantee_so_far(review, 0.8)
    assert found is not None and missing == 0
    assert (found.checked, found.failures, found.masks) == (60, 0, 340)


def test_only_the_random_order_up_to_the_first_open_mask_counts(tmp_path: Path) -> None:
    review = Review(many_masks(400), DecisionStore(tmp_path / "a.sqlite"))
    rows = decide_in_random_order(review, 60)
    review.decide(rows[10], 1, state="open")
    for row in set(range(100)) - set(rows):
        review.decide(row, 0, state="accepted")
    assert guarantee_so_far(review, 0.8) == (None, 19)


def test_masks_that_were_accepted_out_of_order_do_not_leave_a_better_rest(tmp_path: Path) -> None:
    review = Review(many_masks(400), DecisionStore(tmp_path / "a.sqlite"))
    rows = decide_in_random_order(review, 60)
    before = guarantee_so_far(review, 0.8)
    left = select(review, Selection(order="random")).tolist()[60:100]  # the bad ones, for all that is known
    for row in sorted(set(range(400)) - {*rows, *left}):
        review.decide(row, 0, state="accepted")
    assert guarantee_so_far(review, 0.8) == before


def test_corrected_and_rejected_masks_count_by_their_iou(tmp_path: Path) -> None:
    review = Review(many_masks(400), DecisionStore(tmp_path / "a.sqlite"))
    rows = decide_in_random_order(review, 60)
    review.decide(rows[0], 1, state="rejected")
    review.decide(rows[1], 1, state="deleted")
    half = encode_in_box(np.ones((20, 10)), 5, 5, 64, 64)
    review.decide(rows[2], 1, mask=half, maker="you")
    found, _ = guarantee_so_far(review, 0.6)
    assert found is not None and (found.checked, found.failures) == (59, 2)
    assert guarantee_so_far(review, 0.4)[0].failures == 1  # type: ignore[union-attr]


def many_masks(count: int) -> Annotations:
    """Objects of one image, whose predicted masks are squares of 20 pixels; the quality is the same for all."""
    square = msgspec.json.encode(encode_in_box(np.ones((20, 20)), 5, 5, 64, 64))
    return Annotations(
        root=Path(),
        image_ids=[1],
        paths=["a.png"],
        widths=np.array([64]),
        heights=np.array([64]),
        categories=(Category(1, "square"),),
        ids=list(range(count)),
        image_index=np.zeros(count),
        labels=np.zeros(count),
        boxes=np.tile([5.0, 5, 25, 25], (count, 1)),
        iscrowd=np.zeros(count),
        segmentations=np.full(count, square, dtype=object),
        quality=np.full(count, 0.9),
        source=np.full(count, "boxcaseg", dtype=object),
    )


def test_what_was_decided_outlasts_the_next_labeling(scenes: Annotations, tmp_path: Path) -> None:
    boxes, out = scenes.without_masks(), tmp_path / "masks.json"
    count = len(boxes.ids)
    label(boxes, teacher="ellipse", out=out)
    review = Review(read(out, scenes.root), DecisionStore(decisions_path(out)))
    drawn = brush(review.rle(1), (96, 128), [(3, 3)], 2, add=True)
    review.decide(0, 0, state="accepted")
    review.decide(1, 0, state="accepted", mask=drawn, maker="you")
    review.decide(2, 0, state="rejected")
    review.decide(3, 0, state="deleted")
    review.decide(4, 0, category=review.names[(review.labels[4] + 1) % len(review.names)])
    review.decide(5, 0, state="ignored")
    review.store.close()
    assert main(["review", str(out), "--images", str(scenes.root), "--export", str(out)]) == 0
    exported = read(out, scenes.root)

    label(boxes, teacher="ellipse", out=out)

    found = read(out, scenes.root)
    assert len(found.ids) == count - 1 and found.ids == exported.ids
    for name in ("labels", "trusted", "iscrowd", "source"):
        assert getattr(found, name).tolist() == getattr(exported, name).tolist(), name
    assert [found.rle(row) for row in range(count - 1)] == [exported.rle(row) for row in range(count - 1)]
    later = Review(found, DecisionStore(decisions_path(out)))
    states = [later.entry(row).decision.state for row in range(5)]
    assert states == ["accepted", "accepted", "rejected", "open", "ignored"]
