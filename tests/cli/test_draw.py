"""`boxel draw`."""

import json

from boxel.cli import main
from boxel.data.synthetic import write_scenes


def test_draw_writes_a_drawing_per_image_and_reports_missing_images(tmp_path, capsys):
    data = write_scenes(tmp_path / "scenes", 3, height=64, width=96)
    words = ["draw", str(tmp_path / "scenes/masks.json"), "--out", str(tmp_path / "drawn")]
    assert main(words) == 0
    assert f"3 of 3 images drawn: {tmp_path / 'drawn'}" in capsys.readouterr().out
    assert len(list((tmp_path / "drawn").iterdir())) == 3
    for count in (1, 2):
        data.image_path(count - 1).unlink()
        assert main(words) == 1
        captured = capsys.readouterr()
        assert f"{3 - count} of 3 images drawn" in captured.out
        assert captured.err == (
            f"warning: images are missing ({count} of 3), the first is "
            f"{data.image_path(0)}; name their folder with --images.\n"
        )


def test_drawings_of_other_images_in_the_folder_are_announced(tmp_path, capsys):
    write_scenes(tmp_path / "scenes", 2, height=64, width=96)
    (tmp_path / "drawn").mkdir()
    (tmp_path / "drawn" / "old.jpg").touch()
    words = ["draw", str(tmp_path / "scenes/masks.json"), "--out", str(tmp_path / "drawn")]
    assert main(words) == 0
    assert "drawn has 1 other drawings, e.g. old.jpg, which stay there" in capsys.readouterr().err
    (tmp_path / "drawn" / "old.jpg").unlink()
    assert main(words) == 0 and "other drawings" not in capsys.readouterr().err


def test_no_detections_are_stated(tmp_path, capsys):
    write_scenes(tmp_path / "scenes", 1, height=64, width=96)
    results = tmp_path / "results.json"
    results.write_text("[]")
    assert main(["draw", str(tmp_path / "scenes/boxes.json"), "--results", str(results)]) == 0
    assert capsys.readouterr().out == f"{results} has no detections; nothing is drawn.\n"


def test_draw_shows_detections_of_a_results_file(tmp_path, capsys):
    write_scenes(tmp_path / "scenes", 2, height=64, width=96)
    truth = tmp_path / "scenes/boxes.json"
    image = json.loads(truth.read_text())["images"][0]["id"]
    result = {"image_id": image, "category_id": 1, "bbox": [4, 4, 20, 20], "score": 0.9}
    (tmp_path / "results.json").write_text(json.dumps([result]))
    words = [
        "draw",
        str(truth),
        "--results",
        str(tmp_path / "results.json"),
        "--out",
        str(tmp_path / "drawn"),
    ]
    assert main(words) == 0
    assert len(list((tmp_path / "drawn").iterdir())) == 1
