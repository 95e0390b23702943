"""Records of what made a dataset."""

import json
import warnings
from hashlib import sha256
from pathlib import Path

import pytest

import boxel
from boxel.cli.main import main
from boxel.data import example_scenes, read, write
from boxel.data.formats.extras import decode_extras


def record(data):
    return decode_extras(data.dataset_extras)["info"]["boxel"]


@pytest.mark.parametrize(
    "to", ["coco", "yolo", "voc", "labelme", "cvat", "label-studio", "fiftyone", "parquet"]
)
def test_a_converted_dataset_states_what_made_it(tmp_path, to):
    if to == "parquet":
        pytest.importorskip("pyarrow")
    scenes = example_scenes(2)
    target = tmp_path / {"coco": "a.json", "parquet": "a.parquet"}.get(to, "out")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert main(["convert", str(scenes.file), str(target), "--to", to]) == 0
    made = record(read(target))
    assert made["command"] == f"boxel convert {scenes.file} {target} --to {to}"
    assert made["version"] == boxel.__version__ and made["date"].startswith("20")
    digest = sha256(Path(scenes.file).read_bytes()).hexdigest()
    assert made["input"] == {"file": "masks.json", "digest": digest} and "before" not in made


def test_records_form_a_chain_from_the_labels_to_the_last_conversion(tmp_path):
    scenes = example_scenes(2).without_masks()
    write(scenes, tmp_path / "boxes.json")
    images = ["--images", str(scenes.root)]
    label = ["label", str(tmp_path / "boxes.json"), *images, "--teacher", "ellipse", "--out"]
    assert main([*label, str(tmp_path / "masks.json")]) == 0
    assert main(["convert", str(tmp_path / "masks.json"), str(tmp_path / "voc"), "--to", "voc", *images]) == 0
    assert main(["convert", str(tmp_path / "voc"), str(tmp_path / "again.json")]) == 0
    made = record(read(tmp_path / "again.json", images=scenes.root))
    commands = [" ".join(one["command"].split()[:2]) for one in [*made["before"], made]]
    assert commands == ["boxel.write", "boxel label", "boxel convert", "boxel convert"]
    assert made["before"][1]["settings"]["teachers"] == ["ellipse"]


def test_a_repaired_copy_states_what_made_it_and_undoing_takes_the_record_back(tmp_path):
    scenes = example_scenes(2)
    content = json.loads(Path(scenes.file).read_text())
    content["annotations"][0]["bbox"][2] = -5
    content["info"] = {"year": 2020}
    boxes = tmp_path / "boxes.json"
    boxes.write_text(json.dumps(content))
    main(["check", str(boxes), "--images", str(scenes.root), "--repair", str(tmp_path / "new.json")])
    info = json.loads((tmp_path / "new.json").read_text())["info"]
    assert info["year"] == 2020 and info["boxel"]["repaired"] >= 1
    assert (
        info["boxel"]["command"].startswith("boxel check ") and info["boxel"]["input"]["file"] == "boxes.json"
    )
    undo = ["--undo", str(tmp_path / "new_changes.json"), "--images", str(scenes.root)]
    assert main(["check", str(tmp_path / "new.json"), *undo]) == 0
    info = json.loads((tmp_path / "new_restored.json").read_text())["info"]
    assert info["year"] == 2020 and "boxel" not in info


def test_an_info_that_is_a_text_stays(tmp_path):
    content = json.loads(Path(example_scenes().file).read_text()) | {"info": "mine"}
    (tmp_path / "a.json").write_text(json.dumps(content))
    write(read(tmp_path / "a.json"), tmp_path / "b.json")
    assert json.loads((tmp_path / "b.json").read_text())["info"] == "mine"


def test_what_a_program_writes_states_its_version_and_what_made_it_before(tmp_path):
    scenes = example_scenes(2)
    write(scenes, tmp_path / "a.json")
    first = read(tmp_path / "a.json", images=scenes.root)
    assert set(record(first)) == {"command", "version", "date"}
    write(first, tmp_path / "voc", format="voc")
    last = record(read(tmp_path / "voc"))
    assert last["command"] == "boxel.write" and last["version"] == boxel.__version__
    assert last["before"] == [record(first)]
