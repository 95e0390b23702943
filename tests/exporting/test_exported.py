"""Exported files run by onnxruntime alone, against the models that they were made of, run by PyTorch."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from boxel.exporting import export
from boxel.exporting.check import compare
from boxel.masks.grids import paste_grids
from boxel.masks.paste import paste_windows
from boxel.masks.rle import decode
from boxel.models.exported import ExportedBoxToMask, ExportedDetector, ExportedSegmenter
from boxel.models.exported.resizing import resize_image
from boxel.models.inference import resize, to_tensor
from boxel.models.io import load
from boxel.serving.model import ModelService
from boxel.utils.errors import BoxelError, UsageError

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("onnx_installed")]
THRESHOLDS = {"all": 0.3, "by_class": {"thing 1": 0.5}}


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory, photo: Path) -> Callable[[Any, str], Path]:
    """A function that exports a model once, under a name."""
    folder = tmp_path_factory.mktemp("exported")

    def make(model: Any, name: str) -> Path:
        path = folder / f"{name}.onnx"
        if not path.exists():
            export(model, path, [photo])
        return path

    return make


def with_metadata(path: Path, out: Path, **changes: Any) -> Path:
    """A copy of a file with other metadata; None removes an entry."""
    import onnx

    written = onnx.load(path)
    about = {entry.key: entry.value for entry in written.metadata_props}
    about |= {name: value if isinstance(value, str) else json.dumps(value) for name, value in changes.items()}
    del written.metadata_props[:]
    kept = {name: value for name, value in about.items() if changes.get(name, "") is not None}
    onnx.helper.set_model_props(written, kept)
    onnx.save(written, out)
    return out


def same(expected: Any, found: Any) -> None:
    """Equal classes, boxes and masks, up to rounding."""
    check = compare(expected, found)
    assert check.agrees and len(expected) == len(found) and check.unmatched == 0, check
    assert check.box < 0.01 and check.mask_iou > 0.999, check
    assert found.categories == expected.categories and found.image_size == expected.image_size


@pytest.mark.parametrize("factor", [0.21, 0.5, 0.77, 1.0, 1.6])
def test_images_are_resized_as_by_torch_bit_for_bit(pixels: NDArray[np.uint8], factor: float) -> None:
    if torch.backends.cpu.get_cpu_capability() not in ("AVX2", "AVX512"):
        pytest.skip("elsewhere PyTorch resizes with floats")
    image = pixels[:170, :233]
    expected = (resize(to_tensor(image, torch.device("cpu")), factor) * 255).round().byte().permute(1, 2, 0)
    np.testing.assert_array_equal(resize_image(image, factor), expected.numpy())


@pytest.mark.parametrize("name", ["boxinst", "mask_rcnn"])
def test_a_detector_finds_what_torch_finds(
    request: pytest.FixtureRequest, exported: Any, pixels: NDArray[np.uint8], name: str
) -> None:
    model = request.getfixturevalue(name)(
        **{"mask_margin": 0.1, "fit_boxes": 8.0} if name == "boxinst" else {}
    )
    model.settings["score_thresholds"] = THRESHOLDS
    found = load(exported(model, name))
    assert isinstance(found, ExportedDetector)
    images = [pixels, pixels[:200, 30:411], pixels[:, ::-1].copy()]
    settings: list[dict[str, Any]] = [
        {},
        {"short_side": 70},
        {"max_size": 100, "score_threshold": 0.4},
        {"score_threshold": "best"},
        {"class_agnostic_nms": True, "mask_nms": 0.3},
        {"mask_nms": 0.5},
    ]
    counts = set()
    for given in settings:
        expected = model.predict(images, **given)
        counts.add(sum(map(len, expected)))
        for pair in zip(expected, found.predict(images, **given), strict=True):
            same(*pair)
    assert len(counts) >= 5 and min(counts) > 10
    together = found.predict_batch(images)
    for pair in zip(found.predict(images), together, strict=True):
        same(*pair)


def test_instances_in_tiles_are_those_of_torch(
    boxinst: Any, exported: Any, pixels: NDArray[np.uint8]
) -> None:
    model = boxinst()
    given = {"short_side": 96, "max_size": 96, "tile": 80}
    same(model.predict(pixels, **given), load(exported(model, "plain")).predict(pixels, **given))


@pytest.mark.parametrize("method", ["fcrn", "boxsup"])
def test_a_segmenter_gives_the_label_maps_of_torch(
    segmenter: Any, exported: Any, pixels: NDArray[np.uint8], method: str
) -> None:
    model = segmenter(method)
    found = load(exported(model, method))
    assert isinstance(found, ExportedSegmenter)
    for given in ({}, {"long_side": 133}, {"long_side": None}, {"long_side": 96, "tile": 80}):
        expected, ours = model.predict(pixels, **given), found.predict(pixels, **given)
        assert len(np.unique(expected.labels)) > 1 and ours.classes == expected.classes
        assert (ours.labels == expected.labels).mean() >= 0.999
        np.testing.assert_allclose(ours.scores, expected.scores, atol=1e-3)


def test_masks_of_boxes_are_those_of_torch(boxcaseg: Any, exported: Any, pixels: NDArray[np.uint8]) -> None:
    model = boxcaseg(margin=0.25, neighbor_channel=True)
    boxes = [[-5.0, 3.5, 40, 60], [30, 20, 120, 90], [100, 100, 300, 250]]
    found = load(exported(model, "boxcaseg"))
    assert isinstance(found, ExportedBoxToMask)
    same(model.predict(pixels, boxes), found.predict(pixels, boxes))
    assert len(found.predict(pixels, [])) == 0
    with pytest.raises(UsageError, match=r"`boxes` has shape \(2,\); give \(N, 4\)"):
        found.predict(pixels, [1.0, 2.0])


def test_pasted_grids_are_those_of_torch() -> None:
    random = np.random.default_rng(0)
    logits = random.normal(size=(40, 9, 13)).astype(np.float32)
    logits[0], logits[1, :, :6] = -1, -1
    corners = random.uniform(-40, 140, (40, 2))
    windows = np.hstack([corners, corners + random.uniform(0.1, 150, (40, 2))]).astype(np.float32)
    boxes = windows + random.uniform(-10, 10, (40, 4)).astype(np.float32)
    boxes[2] = np.nan
    ours = paste_grids(logits, boxes, windows, (90, 120))
    theirs = paste_windows(*map(torch.from_numpy, (logits, boxes, windows)), (90, 120))
    assert sum(a == b for a, b in zip(ours, theirs, strict=True)) >= 38
    assert sum(rle["counts"] != ours[0]["counts"] for rle in ours) > 15


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"flip": True}, "`flip` cannot be used with an exported file; leave it out, or name the run that"),
        ({"scales": (1.0, 2.0)}, "`scales` cannot be used with an exported file"),
        ({"score_threshold": "best"}, "`score_threshold` is best, but the model has no score thresholds"),
        ({"conf": 0.5}, "unknown setting 'conf'; did you mean 'score_threshold'?"),
    ],
)
def test_settings_that_a_file_cannot_follow_are_refused(
    boxinst: Any, exported: Any, pixels: NDArray[np.uint8], settings: dict[str, Any], message: str
) -> None:
    model = load(exported(boxinst(), "plain"))
    with pytest.raises(UsageError) as error:
        model.predict(pixels, **settings)
    assert message in str(error.value)
    assert len(model.predict(pixels, flip=False, scales=(1.0,))) > 10
    assert model.to("cpu") is model
    with pytest.raises(UsageError, match="`device` is cuda, but exported files run on the CPU"):
        model.to("cuda")


@pytest.mark.parametrize("setting", ["crf", "flip", "shifts"])
def test_settings_that_an_exported_segmenter_cannot_follow_are_refused(
    segmenter: Any, exported: Any, pixels: NDArray[np.uint8], setting: str
) -> None:
    model = load(exported(segmenter("fcrn"), "fcrn"))
    with pytest.raises(UsageError, match=f"`{setting}` cannot be used with an exported file"):
        model.predict(pixels, **{setting: 64 if setting == "shifts" else True})


def test_files_that_cannot_be_used_are_refused_in_a_sentence(
    boxinst: Any, exported: Any, pixels: NDArray[np.uint8], tmp_path: Path
) -> None:
    good, bad = exported(boxinst(), "plain"), tmp_path / "bad.onnx"

    def refuses(message: str, path: Path = bad) -> None:
        with pytest.raises(BoxelError) as error:
            load(path)
        assert message in str(error.value) and str(path) in str(error.value)
        assert "\n" not in str(error.value) and len(str(error.value)) < 500

    refuses("there is no such file", tmp_path / "gone.onnx")
    bad.write_bytes(b"")
    refuses("onnxruntime")
    bad.write_bytes(good.read_bytes()[:5000])
    refuses("cannot run this file")
    bad.write_text("no model at all")
    refuses("export it again")
    with_metadata(good, bad, boxel=None)
    refuses("this ONNX file is not one of boxel, which states its method in the metadata")
    with_metadata(good, bad, method="sam3", boxel="9.1")
    refuses("does not know the method 'sam3' of the file, which boxel 9.1 has written; upgrade boxel.")
    for name in ("categories", "short_side", "max_size", "mask_stride", "mask_margin", "score_thresholds"):
        with_metadata(good, bad, **{name: None})
        refuses(f"the metadata has no {name}; export the run again")
    with_metadata(good, bad, mask_stride="four")
    refuses("the metadata has a damaged mask_stride (Input data was truncated")
    with_metadata(good, bad, short_side=-3)
    refuses("the metadata has a damaged short_side (Expected `int` >= 1")
    with_metadata(good, bad, score_thresholds=[0.5])
    refuses("it has 3 categories and 1 score thresholds")
    with_metadata(good, bad, method="fcrn")
    refuses("a file of fcrn takes images and gives labels, logits, but this one images and boxes, scores")
    with_metadata(good, bad, nms_threshold=None)  # as of older versions
    model = load(bad)
    assert len(model.predict(pixels)) > 10
    with pytest.raises(BoxelError, match="the metadata has no nms_threshold; export the run again"):
        model.predict(pixels, class_agnostic_nms=True)


def test_what_fails_while_it_runs_is_one_sentence(
    boxcaseg: Any, exported: Any, pixels: Any, tmp_path: Path
) -> None:
    good = exported(boxcaseg(), "small")
    model = load(with_metadata(good, tmp_path / "bad.onnx", side=32))
    assert len(model.predict(pixels, [[0, 0, 50, 50]])) == 1
    model.file.inputs = ["crops", "rows"]
    with pytest.raises(
        BoxelError, match=r"bad\.onnx: onnxruntime cannot run it on an input of 1 x 3 x 32 x 32 \("
    ):
        model.predict(pixels, [[0, 0, 50, 50]])


def test_a_folder_may_have_the_suffix(tmp_path: Path) -> None:
    (tmp_path / "run.onnx").mkdir()
    with pytest.raises(BoxelError, match="is not a model folder: it has no config"):
        load(tmp_path / "run.onnx")
    shutil.rmtree(tmp_path / "run.onnx")


def test_a_served_segmenter_describes_each_class_of_an_image(
    segmenter: Any, exported: Any, photo: Path
) -> None:
    model = load(exported(segmenter("fcrn"), "fcrn"))
    expected = model.predict(photo)
    answer = ModelService(model, "fcrn.onnx").predict([photo.read_bytes()] * 2, None, {})
    assert answer["images"] == [{"id": number, "width": 451, "height": 300} for number in (1, 2)]
    rows = [row for row in answer["annotations"] if row["image_id"] == 2]
    shown = np.unique(expected.labels).tolist()
    assert [row["category_id"] for row in rows] == [model.categories[label].id for label in shown]
    assert len(rows) > 1 and sum(row["area"] for row in rows) == 300 * 451
    for row, label in zip(rows, shown, strict=True):
        mask = decode(row["segmentation"]) > 0
        np.testing.assert_array_equal(mask, expected.labels == label)
        assert row["score"] == pytest.approx(expected.scores[mask].mean(), abs=1e-5)
