"""The job: the same masks however often it is interrupted, and nothing done twice."""

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import boxel
from boxel.data import example_scenes, write
from boxel.labeling import store as store_module
from boxel.labeling import target as target_module
from boxel.labeling.api import label_data
from boxel.labeling.calibration import collect_cues
from boxel.labeling.config import LabelConfig
from boxel.labeling.quality import fit_calibration
from boxel.labeling.runner import label_images
from boxel.labeling.store import Store
from boxel.labeling.teachers import make_teacher
from boxel.masks.rle import encode
from boxel.utils.errors import BoxelError


class Counting:
    """The ellipse; it counts the images that it sees, and fails on those that `fails` picks."""

    name = "counting"

    def __init__(self, identity="", fails=lambda image: False):
        self.draw, self.shown, self.identity, self.fails = make_teacher("ellipse", []), 0, identity, fails

    def __call__(self, image, boxes, labels):
        self.shown += 1
        if self.fails(image):
            raise RuntimeError("out of memory")
        return self.draw(image, boxes, labels)


@pytest.fixture
def run(tmp_path):
    """A function that labels a dataset into ``NAME/masks.json`` and returns the result."""

    def label(data, name="out", teacher="ellipse", **options):
        return label_data(data, out=tmp_path / name / "masks.json", teacher=teacher, **options)

    return label


def made(tmp_path, name="out"):
    """The masks that were written; `info` has a date."""
    content = json.loads((tmp_path / name / "masks.json").read_text())
    return {key: value for key, value in content.items() if key != "info"}


@pytest.fixture
def every_image(monkeypatch):
    """Each image is a commit of its own."""
    monkeypatch.setattr(store_module, "COMMIT_SECONDS", 0.0)


def test_masks_are_written_and_returned(make_set, run, tmp_path):
    data = make_set(3)
    outcome = run(data)
    again = boxel.read(tmp_path / "out" / "masks.json")
    assert (outcome.labeled, outcome.reused, outcome.changed, outcome.failures, len(outcome.unmasked)) == (
        3,
        0,
        [],
        [],
        0,
    )
    for masks in (outcome.data, again):
        assert masks.ids == data.ids and masks.has_mask.all()
        assert set(masks.source) == {"ellipse"}
        np.testing.assert_array_equal(masks.boxes, data.boxes)
        y, x = np.mgrid[:40, :60] + 0.5
        disc = np.hypot(x - 30, y - 20) <= 8
        np.testing.assert_array_equal(masks.mask(0), disc)
        corner = np.hypot((x - 15) / 15, (y - 10) / 10) <= 1
        np.testing.assert_array_equal(masks.mask(1), corner & ~disc)  # the disc has the smaller box
    assert again.area(0) == again.mask(0).sum()


@pytest.mark.slow
def test_an_interruption_at_any_commit_loses_and_repeats_nothing(
    make_set, run, tmp_path, monkeypatch, every_image
):
    data = make_set(6)
    run(data, "whole", Counting())
    whole, add = made(tmp_path, "whole"), Store.add
    for after in (False, True):
        for stop in range(6):
            name, commits = f"broken{stop}{after}", iter(range(100))

            def interrupted(self, batch, stop=stop, commits=commits, after=after):
                last = next(commits) == stop
                if after or not last:
                    add(self, batch)
                if last:
                    raise KeyboardInterrupt

            monkeypatch.setattr(Store, "add", interrupted)
            with pytest.raises(KeyboardInterrupt):
                run(data, name, Counting(), workers=2)
            assert not (tmp_path / name / "masks.json").exists()
            monkeypatch.setattr(Store, "add", add)
            teacher = Counting()
            outcome = run(data, name, teacher, workers=2)
            assert outcome.reused == stop + after and outcome.labeled == teacher.shown == 6 - stop - after
            assert made(tmp_path, name) == whole


def test_what_is_done_when_it_is_stopped_is_kept(make_set, run, tmp_path):
    """Not only at a commit: Ctrl-C between two commits keeps what was finished."""
    data, teacher = make_set(5), Counting()

    def stops(image):
        if teacher.shown == 4:
            raise KeyboardInterrupt

    teacher.fails = stops
    with pytest.raises(KeyboardInterrupt):
        run(data, teacher=teacher, workers=1)
    assert run(data, teacher=Counting()).reused == 3


def test_an_interruption_while_the_set_is_written(make_set, run, tmp_path, monkeypatch):
    data = make_set(3)
    run(data, "whole")

    def breaks(data, path, format):
        path.with_name(path.name + ".part").write_text('{"images": [')
        raise KeyboardInterrupt

    monkeypatch.setattr(target_module, "write_as_given", breaks)
    with pytest.raises(KeyboardInterrupt):
        run(data)
    monkeypatch.undo()
    assert run(data).reused == 3 and made(tmp_path) == made(tmp_path, "whole")


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork")
def test_kill_9_at_many_moments_and_in_mid_commit(make_set, tmp_path):
    make_set(80)
    ran = subprocess.run(
        [sys.executable, str(Path(__file__).with_name("killed_job.py")), str(tmp_path)],
        capture_output=True,
        text=True,
    )
    assert ran.returncode == 0, ran.stderr
    *counts, found, labeled = map(int, ran.stdout.split())
    assert counts == sorted(counts) and counts[-1] > counts[4] > 0  # each run resumes from the last
    assert found == counts[-1] and labeled == 80 - found
    assert made(tmp_path, "broken") == made(tmp_path, "whole")


@pytest.mark.slow
def test_threads_make_no_difference(make_set, run, tmp_path):
    data = make_set(12)
    for workers in (1, 2, 5):
        run(data, f"{workers}", "grabcut-ellipse", workers=workers)
    assert made(tmp_path, "1") == made(tmp_path, "2") == made(tmp_path, "5")


def test_a_changed_setting_stops_the_job(make_set, run, tmp_path):
    data = make_set(2)
    run(data)
    before = made(tmp_path)
    for changes, sentence in [
        ({"drop": 0.7}, "drop was 0.0 and is 0.7"),
        ({"teacher": "rectangle"}, r'teachers was \["ellipse"\] and is \["rectangle"\]'),
        ({"flip": True}, "flip was false and is true"),
    ]:
        with pytest.raises(BoxelError, match=sentence):
            run(data, **changes)
    assert made(tmp_path) == before
    assert run(data, workers=1, device="cpu").reused == 2  # these change nothing that comes out


def test_other_weights_or_another_calibration_stop_the_job(make_set, tmp_path, logged):
    data = make_set(1)

    class Half:
        reference, is_fitted = None, True

        def __init__(self, identity):
            self.identity = identity

        def estimate(self, cues):
            return np.array([0.5, np.nan])

        def distance(self, cues):
            return np.array([1.0, np.nan])

    def run(weights, quality):
        with Store(tmp_path / "masks.sqlite") as store:
            return label_images(data, [Counting(weights)], LabelConfig(), store, Half(quality))

    np.testing.assert_array_equal(run("a", "v1").data.quality, np.array([0.5, np.nan], np.float32))
    assert run("a", "v1").reused == 1
    with pytest.raises(BoxelError, match=r'weights of the teachers was \["a"\] and is \["b"\]'):
        run("b", "v1")
    with pytest.raises(BoxelError, match='weights of the quality was "v1" and is "v2"'):
        run("a", "v2")


def test_images_unlike_those_of_the_calibration_are_announced(make_set, tmp_path):
    data, teacher = make_set(12), make_teacher("ellipse")
    cues, ious = collect_cues(example_scenes(20), [teacher], LabelConfig())
    far = fit_calibration(cues, ious)  # scenes do not look like these discs
    near = replace(far, precision=far.precision / 1000)
    sentence = "these images are unlike those that the quality was calibrated on"
    for calibration, unlike in ((near, False), (far, True), (None, False)):
        with Store() as store:
            result = label_images(data, [teacher], LabelConfig(), store, calibration)
        assert (result.is_unlike, sentence in result.summary()) == (unlike, unlike)
    few = data.select_images(range(9))  # 18 masks say little
    with Store(tmp_path / "masks.sqlite") as store:
        assert not label_images(few, [teacher], LabelConfig(), store, far).is_unlike
    with Store(tmp_path / "masks.sqlite") as store:  # known of masks of an earlier run too
        assert label_images(data, [teacher], LabelConfig(), store, far).is_unlike


def test_only_added_images_are_labeled(make_set, run, tmp_path):
    run(make_set(4), teacher=Counting())
    first, teacher = made(tmp_path), Counting()
    data = make_set(6)
    outcome = run(data, teacher=teacher)
    assert (outcome.labeled, outcome.reused, outcome.changed, teacher.shown) == (2, 4, [], 2)

    now = made(tmp_path)["annotations"]
    assert len(now) == 12 and now[:8] == first["annotations"]
    run(data, "whole", Counting())
    assert made(tmp_path, "whole") == made(tmp_path)


def test_a_file_that_is_there_a_second_time_has_not_changed(make_set, run):
    data = make_set(4)
    twice = replace(data, paths=[*data.paths[:3], data.paths[2]])
    run(data.select_images([0, 1, 2]))
    outcome = run(twice)
    assert (outcome.labeled, outcome.reused, outcome.changed) == (1, 3, [])


def test_removed_images_are_left_out_and_ids_may_be_new(make_set, run, tmp_path, logged):
    data = make_set(4)
    run(data)
    fewer = data.select_images([2, 0])
    fewer = replace(fewer, ids=[70, 71, 72, 73], image_ids=[8, 9])
    outcome = run(fewer)
    assert (outcome.labeled, outcome.reused) == (0, 2)
    assert "2 images of the earlier run no longer in the dataset, and left out" in logged
    run(fewer, "whole")
    assert made(tmp_path) == made(tmp_path, "whole")


def test_masks_of_another_dataset_are_not_replaced(make_set, run, tmp_path):
    data = make_set(3)
    run(data)
    before = made(tmp_path)
    other = replace(data.select_images([0]), file=str(tmp_path / "other.json"))
    text = (
        rf"masks.sqlite: it has masks of .*boxes\.json, and 2 of its images are not in {other.file}, .*`out`"
    )
    with pytest.raises(BoxelError, match=text):
        run(other)
    assert made(tmp_path) == before
    # The same images in a file that has moved are the same dataset.
    assert run(replace(data, file=other.file)).reused == 3


def test_the_summary_counts_every_box(make_set, run):
    data = make_set(5)
    boxes, crowd = data.boxes.copy(), data.iscrowd.copy()
    boxes[1], boxes[2] = (80, 50, 90, 60), (5, 5, 5, 9)  # beyond the image, without an area
    crowd[3] = True
    data.image_path(2).unlink()
    segmentations = data.segmentations.copy()
    segmentations[6] = json.dumps(encode(np.ones((40, 60), dtype=np.uint8))).encode()
    quality = np.where(np.arange(10) == 6, 1, np.nan)
    mixed = replace(data, boxes=boxes, iscrowd=crowd, segmentations=segmentations, quality=quality)
    outcome = run(mixed, teacher="grabcut-ellipse", drop=1.0)
    parts = outcome.summary().split("; ")
    new = outcome.data.quality[outcome.made]
    assert parts[0] == "4 of 8 boxes in 5 images got a mask"
    assert parts[1].startswith(f"mean quality of these masks {new.mean():.2f}, ")
    assert parts[3].endswith("of them not trusted")
    assert parts[2] == "4 made, 1 kept"
    assert parts[4:] == [
        "1 without a mask: no object seen in the box, or outside the image",
        "1 without a mask: the box has no area",
        "2 without a mask: the image could not be labeled",
        "1 left alone as crowds",
    ]


def test_changed_images_are_labeled_again_and_logged(make_set, run, tmp_path, logged):
    data = make_set(5)
    run(data)
    boxes, labels = data.boxes.copy(), data.labels.copy()
    boxes[0, 2] += 1  # image 0
    labels[3] = 0  # image 1
    Image.effect_noise((60, 40), 99).convert("RGB").save(data.image_path(2))
    changed = replace(data, boxes=boxes, labels=labels)
    outcome = run(changed)
    assert outcome.changed == ["0.png", "1.png", "2.png"] and (outcome.labeled, outcome.reused) == (3, 2)
    what = "the image or its annotations have changed; it is labeled again, and masks that are not your own may change"
    assert f"2.png: {what}" in logged
    run(changed, "whole")
    assert made(tmp_path) == made(tmp_path, "whole")


def test_bad_images_cost_only_themselves_and_are_retried(make_set, run, tmp_path, logged):
    data = make_set(5)
    whole = {k: data.image_path(k).read_bytes() for k in range(5)}
    data.image_path(0).unlink()
    data.image_path(2).write_bytes(whole[2][:500])
    Image.new("RGB", (30, 30)).save(data.image_path(3))
    for teacher in (Counting(), Counting()):
        outcome = run(data, teacher=teacher)
        assert outcome.data.has_mask.tolist() == [False] * 2 + [True] * 2 + [False] * 4 + [True] * 2
        assert len(outcome.failures) == 3 and len(outcome.unmasked) == 0
        assert logged[-3:-1] == outcome.failures[1:]
        assert logged[-1] == (
            f"images are missing (1 of 5), the first is {data.image_path(0)}; name their folder with "
            "`images`."
        )
        for sentence, words in zip(
            outcome.failures,
            ["0.png: the image is missing", "2.png: the image is truncated", "30 x 30"],
            strict=True,
        ):
            assert words in sentence
    assert teacher.shown == 0  # on the second run only the bad ones are tried
    for k, content in whole.items():
        data.image_path(k).write_bytes(content)
    assert run(data, teacher=Counting()).data.has_mask.all()
    run(data, "whole", Counting())
    assert made(tmp_path) == made(tmp_path, "whole")


def test_an_error_of_a_teacher_costs_only_that_image(make_set, run):
    data = make_set(3)
    Image.new("RGB", (60, 40)).save(data.image_path(1))
    outcome = run(data, teacher=Counting(fails=lambda image: not image.any()))
    assert outcome.failures == [f"{data.image_path(1)}: cannot be labeled: RuntimeError: out of memory."]
    assert outcome.data.has_mask.sum() == 4


def test_nothing_is_written_if_no_image_can_be_labeled(make_set, run, tmp_path):
    data = replace(make_set(3), root=tmp_path / "nowhere")
    with pytest.raises(
        BoxelError,
        match=r"boxes\.json: none of its 3 images can be labeled; images are missing \(3 of 3\).*0\.png.*`images`",
    ):
        run(data)
    assert not (tmp_path / "out" / "masks.json").exists()


def test_trusted_masks_and_crowds_stay_as_they_are(make_set, run):
    data = make_set(2)
    given = np.zeros((40, 60), dtype=np.uint8)
    given[12:20, 22:38] = 1
    segmentations = data.segmentations.copy()
    segmentations[[0, 3]] = json.dumps(encode(given)).encode()
    crowd = np.array([False, False, True, False])
    source, trusted = (
        np.array(["human", None, None, "old"], dtype=object),
        np.array([True, True, True, False]),
    )
    mixed = replace(data, segmentations=segmentations, iscrowd=crowd, source=source, trusted=trusted)
    kept = run(mixed, "kept", "rectangle").data
    assert kept.source.tolist() == ["human", "rectangle", None, "rectangle"]
    np.testing.assert_array_equal(kept.mask(0), given)
    expected = np.zeros((40, 60), dtype=np.uint8)
    expected[:20, :30] = 1
    np.testing.assert_array_equal(kept.mask(1), expected & ~given)
    assert kept.mask(2) is None
    np.testing.assert_array_equal(kept.mask(3), expected)  # the mask that was not trusted is replaced
    assert kept.trusted.all()
    relabeled = run(mixed, "relabeled", "rectangle", relabel=True).data
    assert relabeled.source.tolist() == ["rectangle", "rectangle", None, "rectangle"]
    assert relabeled.mask(0).sum() == 16 * 16


def test_predicted_masks_are_made_again_and_corrected_ones_stay(make_set, run):
    before = run(make_set(2), "before", "ellipse").data
    given = np.zeros((40, 60), dtype=np.uint8)
    given[12:20, 22:38] = 1
    before.segmentations[0], before.source[0] = json.dumps(encode(given)).encode(), None
    before.quality[0] = np.nan
    outcome = run(before, "after", "rectangle")
    assert outcome.data.source.tolist() == [None, "rectangle", "rectangle", "rectangle"]
    np.testing.assert_array_equal(outcome.data.mask(0), given)
    assert outcome.made.tolist() == [False, True, True, True] and "3 made, 1 kept" in outcome.summary()


def test_an_unreadable_trusted_mask_is_replaced(make_set, run, caplog):
    data = make_set(1)
    segmentations = data.segmentations.copy()
    segmentations[0] = b"[[1, 2, 3]]"
    outcome = run(replace(data, segmentations=segmentations))
    assert outcome.data.has_mask.all() and outcome.data.source[0] == "ellipse"
    assert (
        "1 of 1 masks cannot be used, and masks are made instead: 1 unreadable (annotation 1)" in caplog.text
    )
    assert outcome.summary().endswith("1 made, 0 kept, 1 replaced because unreadable (annotation 1)")


def test_a_changed_mask_that_stays_changes_its_neighbors(make_set, run):
    data = make_set(2)
    segmentations = data.segmentations.copy()
    for side in (4, 8):
        given = np.zeros((40, 60), dtype=np.uint8)
        given[20 - side : 20, 30 - side : 30] = 1
        segmentations[0] = json.dumps(encode(given)).encode()
        outcome = run(replace(data, segmentations=segmentations.copy()), teacher="rectangle")
        assert outcome.data.mask(1).sum() == 600 - side**2
    assert outcome.changed == ["0.png"]


def test_boxes_without_a_mask_are_logged(make_set, run, logged):
    data = make_set(2)
    boxes = data.boxes.copy()
    boxes[1] = (80, 50, 90, 60)  # beyond the image
    boxes[2] = (5, 5, 5, 9)  # without an area
    outcome = run(replace(data, boxes=boxes))
    assert outcome.data.has_mask.tolist() == [True, False, False, True]
    assert outcome.unmasked.tolist() == [1]
    assert logged[-1] == (
        "1 box without a mask: no object seen in it, or outside the image; the first: annotation 2 (image 1)"
    )


def test_missing_sizes_are_filled_in(make_set, run):
    data = make_set(2)
    outcome = run(replace(data, widths=np.zeros(2, np.int32), heights=np.zeros(2, np.int32)))
    assert outcome.data.widths.tolist() == [60, 60] and outcome.data.heights.tolist() == [40, 40]


def test_an_image_listed_twice_gets_its_masks_twice(make_set, run):
    data, teacher = make_set(2), Counting()
    twice = data.select_images([0, 1])
    twice = replace(
        twice,
        image_ids=[1, 2, 3],
        paths=["0.png", "1.png", "0.png"],
        label_maps=[None] * 3,
        image_extras=[None] * 3,
        splits=[None] * 3,
        widths=np.full(3, 60, np.int32),
        heights=np.full(3, 40, np.int32),
        ids=[1, 2, 3, 4, 5, 6],
        image_index=np.array([0, 0, 1, 1, 2, 2], np.int32),
        **{
            name: np.concatenate([getattr(data, name), getattr(data, name)[:2]])
            for name in (
                "labels",
                "boxes",
                "iscrowd",
                "segmentations",
                "quality",
                "source",
                "trusted",
                "areas",
                "extras",
            )
        },
    )
    outcome = run(twice, teacher=teacher)
    assert outcome.data.has_mask.all() and teacher.shown == 2
    np.testing.assert_array_equal(outcome.data.mask(0), outcome.data.mask(4))


def test_the_source_names_all_teachers_with_an_opinion(make_set, run):
    outcome = run(make_set(1), teacher=["inner-box", "ellipse"])
    assert set(outcome.data.source) == {"inner-box+ellipse"}


def test_areas_are_those_of_the_new_masks(make_set, run, tmp_path):
    data = replace(make_set(1), areas=np.array([5.0, 7.0]))
    write(run(data).data, tmp_path / "again.json")
    areas = [row["area"] for row in json.loads((tmp_path / "again.json").read_text())["annotations"]]
    assert areas == [boxel.read(tmp_path / "again.json").mask(k).sum() for k in range(2)]


def test_a_dataset_without_boxes_to_label_is_written(make_set, run, tmp_path):
    data = make_set(1)
    outcome = run(replace(data, iscrowd=np.ones(2, dtype=bool)))
    assert (outcome.labeled, outcome.reused) == (0, 0) and len(
        boxel.read(tmp_path / "out" / "masks.json")
    ) == 1
    assert (
        os.listdir(tmp_path / "out") == ["masks.json", "masks.sqlite"]
        or len(os.listdir(tmp_path / "out")) == 2
    )
