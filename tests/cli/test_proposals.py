"""`boxel segments`."""

import re

import pytest

from boxel.cli import main
from boxel.data.synthetic import write_scenes


@pytest.mark.slow
def test_segments_are_written_and_compared_with_masks(tmp_path, capsys) -> None:
    write_scenes(tmp_path / "scenes", 2)
    words = [
        "segments",
        str(tmp_path / "scenes/masks.json"),
        "--out",
        str(tmp_path / "out"),
        "--workers",
        "1",
    ]
    assert main([*words, "--count", "60", "--plot", str(tmp_path / "recall.png")]) == 0
    out = capsys.readouterr().out
    assert f"segments of 2 images: {tmp_path / 'out'}" in out
    rows = [line.split() for line in out.splitlines() if line.strip()[:1].isdigit()]
    assert [int(row[0]) for row in rows] == [10, 20, 50, 100, 200, 500, 1000, 2000]
    assert float(rows[-1][1]) > 0.8 and float(rows[0][1]) <= float(rows[-1][1])
    assert (tmp_path / "recall.png").read_bytes().startswith(b"\x89PNG")
    assert len(list((tmp_path / "out").iterdir())) == 2
    # Without masks there is nothing to compare them with.
    boxes = [
        "segments",
        str(tmp_path / "scenes/boxes.json"),
        "--out",
        str(tmp_path / "out"),
        "--workers",
        "1",
    ]
    assert main([*boxes, "--source", "gop", "--no-fit-boxes", "--no-grabcut"]) == 0
    assert "mean IoU" not in capsys.readouterr().out


@pytest.mark.parametrize(
    ("flags", "code", "message"),
    [
        (["--source", "mgc"], 2, "--source is mgc; give mcg, selective-search or gop. Did you mean 'mcg'"),
        (["--count", "0"], 2, "--count is 0; give a whole number above 0"),
        (["--workers", "0"], 2, "--workers is 0; give a whole number above 0"),
    ],
)
def test_wrong_settings_are_one_sentence(tmp_path, capsys, flags, code, message) -> None:
    write_scenes(tmp_path, 1)
    assert main(["segments", str(tmp_path / "boxes.json"), *flags]) == code
    assert re.search(message, capsys.readouterr().err)


def test_a_missing_image_is_reported_and_skipped(tmp_path, capsys) -> None:
    write_scenes(tmp_path, 2)
    gone = next((tmp_path / "images").iterdir())
    gone.unlink()
    assert (
        main(["segments", str(tmp_path / "masks.json"), "--out", str(tmp_path / "out"), "--count", "20"]) == 1
    )
    captured = capsys.readouterr()
    assert gone.name in captured.err and "segments of 1 images" in captured.out
