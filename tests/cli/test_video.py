"""Videos through the command line: predict, label, draw, evaluate."""

import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

import boxel
from boxel.cli import main

pytestmark = pytest.mark.slow

SIZE = 96, 64  # width, height
COUNT = 6


def run(*words: object) -> int:
    return main([str(word) for word in words])


def circle(number: int) -> np.ndarray:
    """The mask of a disc that moves to the right."""
    mask = np.zeros(SIZE[::-1], np.uint8)
    cv2.circle(mask, (25 + 6 * number, 32), 15, 1, -1)
    return mask


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A video of a disc with `true.json` and `boxes.json`, whose images are its frames."""
    folder = tmp_path_factory.mktemp("video")
    writer = cv2.VideoWriter(
        str(folder / "clip.mp4"), cv2.CAP_FFMPEG, cv2.VideoWriter.fourcc(*"mp4v"), 12.0, SIZE
    )
    images, annotations = [], []
    for number in range(COUNT):
        mask = circle(number)
        writer.write(np.where(mask[..., None] > 0, (30, 60, 220), (120, 140, 60)).astype(np.uint8))
        x, y, w, h = cv2.boundingRect(mask)
        outline = cv2.findContours(mask, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)[0][0]
        images.append(
            {"id": number, "file_name": f"clip.mp4#{number:06d}", "width": SIZE[0], "height": SIZE[1]}
        )
        row = {"id": number + 1, "image_id": number, "category_id": 1, "bbox": [x, y, w, h], "track_id": 7}
        annotations.append(row | {"segmentation": [outline.ravel().tolist()], "area": int(mask.sum())})
    writer.release()
    content: dict[str, Any] = {"images": images, "categories": [{"id": 1, "name": "ball"}]}
    (folder / "true.json").write_text(json.dumps(content | {"annotations": annotations}))
    for row in annotations:
        row.pop("segmentation")
    (folder / "boxes.json").write_text(json.dumps(content | {"annotations": annotations}))
    return folder


def test_predictions_on_a_video_are_drawn_as_one_and_evaluated(folder: Path, tmp_path: Path, capsys) -> None:
    out, drawn = tmp_path / "p.json", tmp_path / "drawn.mp4"
    words = ["predict", "boxcaseg", folder / "clip.mp4", "--boxes", folder / "boxes.json", "--out", out]
    assert run(*words, "--draw", drawn) == 0
    assert f"{COUNT} instances in {COUNT} images: {out}; {COUNT} with" in capsys.readouterr().out
    rows = json.loads(out.read_text())
    assert [(r["image_id"], r["file_name"], r["frame"], r["time"]) for r in rows[:2]] == [
        ("clip_000000", "clip.mp4#000000", 0, 0.0),
        ("clip_000001", "clip.mp4#000001", 1, 0.0833),
    ]
    capture = cv2.VideoCapture(str(drawn), cv2.CAP_FFMPEG)
    frames = []
    while capture.grab():
        frames.append(capture.retrieve()[1])
    assert capture.get(cv2.CAP_PROP_FPS) == 12.0 and len(frames) == COUNT
    assert frames[0].shape == (64, 96, 3) and capture.get(cv2.CAP_PROP_FRAME_COUNT) == COUNT
    plain = boxel.BoxSegmenter("ellipse")(f"{folder}/clip.mp4#000000", [[10, 10, 40, 40]]).image
    assert np.abs(frames[0][..., ::-1].astype(int) - plain)[20:44, 12:38].mean() > 20  # the mask is drawn

    assert run("evaluate", out, folder / "true.json") == 0
    assert f"over {COUNT} of {COUNT} instances found" in capsys.readouterr().out
    assert run("draw", out, "--images", folder / "clip.mp4", "--out", tmp_path / "one") == 0
    assert (
        run("draw", out, "--images", folder, "--truth", folder / "true.json", "--out", tmp_path / "two") == 0
    )
    for name in ("one", "two"):
        assert [p.name for p in sorted((tmp_path / name).iterdir())] == [
            f"clip_{k:06d}.jpg" for k in range(COUNT)
        ]


def test_every_other_frame_lasts_as_long(folder: Path, tmp_path: Path) -> None:
    words = ["predict", "boxcaseg", folder / "clip.mp4", "--boxes", folder / "boxes.json", "--every", 2]
    assert run(*words, "--out", tmp_path / "p.json", "--draw", tmp_path / "drawn") == 0
    assert [row["frame"] for row in json.loads((tmp_path / "p.json").read_text())] == [0, 2, 4]
    capture = cv2.VideoCapture(str(tmp_path / "drawn" / "clip.mp4"), cv2.CAP_FFMPEG)
    assert (capture.get(cv2.CAP_PROP_FPS), capture.get(cv2.CAP_PROP_FRAME_COUNT)) == (6.0, 3)


def test_a_drawn_video_never_replaces_its_source(folder: Path, tmp_path: Path, capsys) -> None:
    before = (folder / "clip.mp4").read_bytes()
    words = [
        "predict",
        "boxcaseg",
        folder / "clip.mp4",
        "--boxes",
        folder / "boxes.json",
        "--out",
        tmp_path / "p.json",
    ]
    for draw, message in (
        (folder / "clip.mp4", "is the video itself"),
        (folder, "holds the images"),
        (tmp_path / "a.wmv", "videos are written as .avi, "),
    ):
        assert run(*words, "--draw", draw) == 2
        assert message in capsys.readouterr().err
    assert (
        run("predict", "boxcaseg", folder, folder / "clip.mp4", *words[3:], "--draw", tmp_path / "b.mp4") == 0
    )
    (tmp_path / "photos").mkdir()
    cv2.imwrite(str(tmp_path / "photos" / "a.png"), np.zeros((8, 8, 3), np.uint8))
    assert (
        run("predict", "boxcaseg", folder, tmp_path / "photos", *words[3:], "--draw", tmp_path / "b.mp4") == 2
    )
    assert "the images are not those of one video" in capsys.readouterr().err
    assert (folder / "clip.mp4").read_bytes() == before


def test_boxes_on_frames_get_masks(folder: Path, tmp_path: Path, capsys) -> None:
    out = tmp_path / "masks.json"
    assert run("label", folder / "boxes.json", "--images", folder, "--out", out) == 0
    assert f"{COUNT} of {COUNT} boxes in {COUNT} images got a mask" in capsys.readouterr().out
    masks = boxel.read(out)
    truth = [circle(number) for number in range(COUNT)]
    for number, true in enumerate(truth):
        made = masks.mask(number)
        assert made is not None and (made & true).sum() / (made | true).sum() > 0.8
    assert json.loads(out.read_text())["annotations"][0]["track_id"] == 7
    assert (
        run("label", folder / "boxes.json", "--images", folder, "--out", out) == 0
    )  # resumes: nothing is made
    assert run("check", folder / "boxes.json", "--images", folder) == 0
