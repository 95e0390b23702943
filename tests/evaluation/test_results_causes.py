"""Causes of detections that do not fit: each is named from the boxes, beside the numbers."""

import numpy as np
import pytest

from boxel.evaluation import evaluate
from boxel.evaluation.causes import find_causes
from boxel.masks.rle import encode

SIZES = [(480, 640), (600, 400), (300, 500), (720, 1280), (512, 512), (375, 500)]  # height, width


def make_boxes(height, width, count, seed):
    """(count, 4) xywh boxes that are not at the origin."""
    random = np.random.default_rng(seed)
    corner = random.uniform(0.1, 0.5, (count, 2)) * (width, height)
    return np.concatenate([corner, random.uniform(0.1, 0.4, (count, 2)) * (width, height)], axis=1)


def make_scene(make_truth, count=4, first_id=1):
    """Truth of six images with boxes of four categories, and the detections of a good but not perfect model."""
    random = np.random.default_rng(5)
    instances, results = [], []
    for image, (height, width) in enumerate(SIZES):
        boxes = make_boxes(height, width, count, image)
        for k, (x, y, w, h) in enumerate(boxes.tolist()):
            instances.append({"image": image, "label": k % 4, "box": (x, y, x + w, y + h)})
            moved = (boxes[k] + random.normal(0, 0.03, 4) * (w, h, w, h)).tolist()
            found = {"image_id": image + first_id, "category_id": (2, 3, 5, 9)[k % 4], "bbox": moved}
            results.append(found | {"score": float(random.uniform(0.5, 1))})
            false = make_boxes(height, width, 1, 100 + image * count + k)[0].tolist()
            results.append({**found, "bbox": false, "score": float(random.uniform(0, 0.5))})
    ids = range(first_id, len(SIZES) + first_id)
    return make_truth(SIZES, instances, category_ids=(2, 3, 5, 9), image_ids=list(ids)), results


def changed(results, change):
    """Detections whose boxes are a function of xywh, width and height."""
    rows = []
    for result in results:
        height, width = SIZES[result["image_id"] - 1]
        rows.append({**result, "bbox": [float(v) for v in change(*result["bbox"], width, height)]})
    return rows


def letterbox(x, y, w, h, width, height):
    scale = 640 / max(width, height)
    left, top = (640 - width * scale) / 2, (640 - height * scale) / 2
    return x * scale + left, y * scale + top, w * scale, h * scale


def scaled(x, y, w, h, fx, fy):
    return x * fx, y * fy, w * fx, h * fy


def corners(box):
    x, y, w, h = box
    return x, y, x + w, y + h


BOXES = {
    "as x0, y0, x1, y1; COCO": lambda x, y, w, h, *_: (x, y, x + w, y + h),
    "as center x, center y, width, height": lambda x, y, w, h, *_: (x + w / 2, y + h / 2, w, h),
    "as y0, x0, y1, x1": lambda x, y, w, h, *_: (y, x, y + h, x + w),
    "as shares of the image (x, y, width, height)": lambda x, y, w, h, W, H: (x / W, y / H, w / W, h / H),
    "as shares of the image (center x": lambda x, y, w, h, W, H: (
        (x + w / 2) / W,
        (y + h / 2) / H,
        w / W,
        h / H,
    ),
    "as shares of the image (x0, y0": lambda x, y, w, h, W, H: (x / W, y / H, (x + w) / W, (y + h) / H),
    "resized to 640 x 640": lambda x, y, w, h, W, H: scaled(x, y, w, h, 640 / W, 640 / H),
    "longer side is 640": lambda x, y, w, h, W, H: scaled(x, y, w, h, *[640 / max(W, H)] * 2),
    "shorter side is 800": lambda x, y, w, h, W, H: scaled(x, y, w, h, *[800 / min(W, H)] * 2),
    "resized by a factor of 0.5": lambda x, y, w, h, *_: scaled(x, y, w, h, 0.5, 0.5),
    "padded to a square and resized to 640 x 640": letterbox,
    "images turned by 90 degrees": lambda x, y, w, h, W, H: (y, W - x - w, h, w),
    "images turned by 180 degrees": lambda x, y, w, h, W, H: (W - x - w, H - y - h, w, h),
    "images turned by 270 degrees": lambda x, y, w, h, W, H: (H - y - h, x, h, w),
    "as y, x, height, width; COCO": lambda x, y, w, h, *_: (y, x, h, w),
    "as shares of the image (y0, x0": lambda x, y, w, h, W, H: (y / H, x / W, (y + h) / H, (x + w) / W),
    "as x0, y0, x1, y1, fit images whose longer side is 640": lambda *box: corners(
        scaled(*box[:4], *[640 / max(box[4:])] * 2)
    ),
    "as x0, y0, x1, y1, fit images padded to a square and resized to 640 x 640": lambda *box: corners(
        letterbox(*box)
    ),
}


@pytest.mark.parametrize("said", BOXES)
@pytest.mark.parametrize("count", [1, 4])
def test_boxes_of_another_form_are_recognized(make_truth, said, count):
    truth, results = make_scene(make_truth, count)
    assert find_causes(truth, results) == []
    causes = find_causes(truth, changed(results, BOXES[said]))
    assert len(causes) == 1, causes
    close = said.replace("640", "").replace("800", "").replace("0.5", "")
    words = [part for part in close.split("  ") if part]
    assert all(word.strip() in causes[0] for word in words), causes
    numbers = [float(word) for word in said.split() if word.replace(".", "").isdigit()]
    found = [
        float(word.strip(";")) for word in causes[0].split() if word.strip(";").replace(".", "").isdigit()
    ]
    assert found[: len(numbers)] == pytest.approx(numbers, rel=0.03)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda k: k + 1, "the class ids are one too high; subtract 1 from each category_id"),
        (lambda k: k - 1, "the class ids are one too low, as if they counted from 0; add 1"),
        (
            lambda k: (2, 3, 5, 9).index(k),
            "the class ids count the categories from 0 in the order of their ids",
        ),
        (
            lambda k: (2, 3, 5, 9).index(k) + 1,
            "the class ids count the categories from 1 in the order of their ids",
        ),
        (
            lambda k: {2: 9, 3: 5, 5: 2, 9: 3}[k],
            "the classes do not, e.g. 9 (class 9) instead of 2 (class 2) for 6 of",
        ),
    ],
)
def test_classes_that_are_numbered_otherwise_are_recognized(make_truth, caplog, change, said):
    truth, results = make_scene(make_truth)
    other = [{**result, "category_id": change(result["category_id"])} for result in results]
    causes = find_causes(truth, other)
    assert len(causes) == 1 and causes[0].startswith("the boxes agree and") and said in causes[0]
    assert find_causes(truth, other, class_agnostic=True) == []
    # Both at once.
    assert len(find_causes(truth, changed(other, BOXES["as x0, y0, x1, y1; COCO"]))) == 2
    metrics = evaluate(other, truth).metrics
    assert metrics["box"]["AP"] < 0.4 and f"results: {causes[0]}." in caplog.text  # the numbers are there too


@pytest.mark.parametrize("shift", [1, -1])
def test_image_ids_that_count_from_another_number_are_recognized(make_truth, shift):
    truth, results = make_scene(make_truth)
    shifted = [{**result, "image_id": result["image_id"] + shift} for result in results]
    shifted = [result for result in shifted if result["image_id"] in truth.image_ids]
    assert find_causes(truth, shifted) == [
        f"the boxes fit the images whose id is one {'more' if shift < 0 else 'less'}; add {-shift} to each image_id"
    ]


def test_results_that_overlap_nothing_are_reported(make_truth):
    truth, results = make_scene(make_truth)
    tiny = [{**result, "bbox": [1, 1, 2, 2]} for result in results]
    assert find_causes(truth, tiny) == [
        "no true box overlaps a box of the results by an IoU of 0.5; check that results and ground truth are of the "
        "same images and in pixels of the original files"
    ]
    assert find_causes(truth, []) == [] and find_causes(truth.select_instances([]), results) == []


@pytest.mark.parametrize("seed", range(20))
def test_weak_detectors_have_no_cause(make_truth, seed):
    """Detections that are only half right do not fit any hypothesis by chance."""
    truth, results = make_scene(make_truth)
    random = np.random.default_rng(seed)
    weak = []
    for result in results:
        x, y, w, h = result["bbox"]
        moved = np.array([x, y, w, h]) + random.normal(0, 0.35, 4) * (w, h, w, h)
        weak.append({**result, "bbox": [*moved[:2].tolist(), *np.maximum(moved[2:], 2).tolist()]})
        if random.random() < 0.4:
            weak[-1]["category_id"] = int(random.choice([2, 3, 5, 9]))
    assert find_causes(truth, weak) == []


SITES = {  # where the objects of a dataset are: a hypothesis fits such boxes by chance
    "the whole image": lambda random: (0, 0, *random.uniform(0.9, 1, 2)),
    "the upper left corner": lambda random: (*random.uniform(0, 0.01, 2), *random.uniform(0.1, 0.4, 2)),
    "the center": lambda random: (lambda w, h: ((1 - w) / 2, (1 - h) / 2, w, h))(
        *random.uniform(0.4, 0.7, 2)
    ),
    "the top": lambda random: (0, 0, 1, random.uniform(0.3, 0.4)),
}
BAD = {
    "the whole image": lambda x, y, w, h, W, H: (0, 0, W, H),
    "the left half of each object": lambda x, y, w, h, *_: (x, y, w / 2, h),
    "its head": lambda x, y, w, h, *_: (x, y, w / 2, h / 3),
    "it and its shadow": lambda x, y, w, h, W, H: (x, y, min(w * 1.5, W - x), min(h * 1.3, H - y)),
    "loose": lambda x, y, w, h, *_: (max(x - 0.6 * w, 0), max(y - 0.6 * h, 0), 2.2 * w, 2.2 * h),
    "tight": lambda x, y, w, h, *_: (x + w / 8, y + h / 8, w * 0.75, h * 0.75),
}


@pytest.mark.parametrize(("count", "named"), [(3, False), (4, True)])
def test_a_few_symmetric_objects_are_not_turned_images(make_truth, count, named):
    instances = [{"image": k, "box": (20 + 5 * k, 10 + 10 * k, 60, 40 + 10 * k)} for k in range(count)]
    truth = make_truth([(100, 100)] * count, instances)
    results = [
        {"image_id": truth.image_ids[k], "category_id": truth.categories[0].id, "score": 0.9, "bbox": turned}
        for k, turned in enumerate([[40.0, 60 - 10 * k, 40 - 5 * k, 30] for k in range(count)])
    ]
    assert any("turned by 180" in cause for cause in find_causes(truth, results)) == named


@pytest.mark.parametrize("site", SITES)
@pytest.mark.parametrize("bad", BAD)
def test_boxes_that_are_bad_alike_are_no_boxes_of_another_form(make_truth, site, bad):
    random = np.random.default_rng(1)
    sizes = SIZES * 3
    instances, results = [], []
    for image, (height, width) in enumerate(sizes):
        x, y, w, h = np.array(SITES[site](random)) * (width, height, width, height)
        instances.append({"image": image, "box": (x, y, x + w, y + h)})
        box = [float(value) for value in BAD[bad](x, y, w, h, width, height)]
        results.append({"image_id": image + 1, "category_id": 1, "score": 0.5, "bbox": box})
    causes = find_causes(make_truth(sizes, instances), results)
    assert all(cause.startswith(("no true box overlaps", "only ")) for cause in causes), causes


def test_a_detector_of_one_class_is_not_off_by_one(make_truth):
    boxes = [(20 * k, 5, 20 * k + 15, 25) for k in range(4)]
    instances = [{"box": box, "label": int(k == 3)} for k, box in enumerate(boxes)]
    truth = make_truth([(60, 90)], instances, category_ids=(1, 2))
    rows = [{"image_id": 1, "score": 0.9, "bbox": [x, y, 15, 20]} for x, y, *_ in boxes]
    assert find_causes(truth, [{**row, "category_id": 2} for row in rows]) == []
    assert "one too low" in find_causes(truth, [{**row, "category_id": 0} for row in rows])[0]


def test_classes_that_are_given_once_each_show_no_other_numbering(make_truth):
    boxes = [(20 * k, 5, 20 * k + 15, 25) for k in range(4)]
    instances = [{"box": box, "label": k} for k, box in enumerate(boxes)]
    truth = make_truth([(60, 90)], instances, category_ids=(2, 3, 5, 9))
    rows = [{"image_id": 1, "score": 0.9, "bbox": [x, y, 15, 20]} for x, y, *_ in boxes]
    given = [{**row, "category_id": id} for row, id in zip(rows, (9, 2, 3, 5), strict=True)]
    assert find_causes(truth, given) == []


def test_results_of_other_images_are_reported(make_truth):
    random = np.random.default_rng(0)
    boxes = np.concatenate(
        [random.uniform(0, 400, (25, 2)), random.uniform(40, 100, (25, 2))], axis=1
    ).tolist()
    instances = [{"image": k, "box": (x, y, x + w, y + h)} for k, (x, y, w, h) in enumerate(boxes)]
    boxes[3] = boxes[0]  # one fits by chance
    rows = [
        {"image_id": (k + 3) % 25 + 1, "category_id": 1, "score": 0.9, "bbox": box}
        for k, box in enumerate(boxes)
    ]
    instances[3]["box"] = instances[0]["box"]
    (cause,) = find_causes(make_truth([(500, 500)] * 25, instances), rows)
    assert cause.startswith(
        "only 1 of 25 compared true boxes overlap a box of the results by an IoU of 0.5; check that"
    )


def test_random_sets_have_no_cause(random_set):
    for seed in range(5):
        assert find_causes(*random_set(seed)) == []


def test_codes_that_run_along_rows_are_recognized(make_truth, make_result, ellipse):
    random = np.random.default_rng(3)
    masks = [ellipse(random, 60, 90) for _ in range(6)]
    truth = make_truth([(60, 90)], [{"mask": mask} for mask in masks])
    results = [make_result(mask, 0.9) for mask in masks]
    assert find_causes(truth, results) == []
    for result, mask in zip(results, masks, strict=True):
        result["segmentation"] = encode(mask.ravel().reshape(mask.shape, order="F"))
    assert find_causes(truth, results) == [
        "the run-length codes of the masks run along the rows; write them down the columns, as pycocotools does"
    ]


def test_mixed_up_image_ids_are_named_and_poor_detections_are_not(make_truth):
    truth, results = make_scene(make_truth)
    ids = list(truth.image_ids)
    others = dict(zip(ids, ids[3:] + ids[:3], strict=True))
    mixed = [{**result, "image_id": others[result["image_id"]]} for result in results]
    (cause,) = find_causes(truth, mixed)
    assert f"the boxes of image {ids[0]} fit image {ids[3]}" in cause and "mixed up" in cause
    random = np.random.default_rng(0)
    for result in results:
        result["bbox"] = [*random.uniform(0, 200, 2), *random.uniform(5, 100, 2)]
    assert not any("mixed up" in cause for cause in find_causes(truth, results))
