"""Models on the hub wherever a run folder is accepted."""

import json
from hashlib import sha256

import numpy as np
import pytest
from huggingface_hub import constants
from PIL import Image

import boxel
from boxel.cli import main
from boxel.data import write
from boxel.data.annotations import Category
from boxel.data.synthetic import write_scenes
from boxel.evaluation.run import subject_kind
from boxel.labeling.quality import find_calibration, save_calibration
from boxel.labeling.teachers import make_teacher
from boxel.models import build, save
from boxel.models.pretrained import model_folder, read_method
from boxel.training.start_weights import read_start_settings, read_start_weights
from boxel.utils.errors import BoxelError
from boxel.utils.hub import READ, HubId, parse_hub_id

WRITER = "hf_writer_0123456789"
LOGIN = "log in with `hf auth login`, or set HF_TOKEN"


@pytest.fixture
def files(run):
    """What a repository of the run holds, and what nobody should download."""
    save_calibration(find_calibration("boxcaseg"), run / "quality.json")
    names = {file.name for file in run.iterdir()} & set(READ)
    return {name: (run / name).read_bytes() for name in names} | {
        **{
            "README.md": b"card",
            "pytorch_model.bin": b"pickle",
            "modeling.py": b"code",
            "other.safetensors": b"",
        },
        "sub/config.yaml": b"another",
    }


def downloaded(hub):
    return {path.rpartition("/")[2] for path in hub.paths("GET") if "/resolve/" in path}


def test_only_what_is_read_is_downloaded(hub, files):
    hub.add("anna/cats", files)
    model = boxel.load("anna/cats")
    assert [category.name for category in model.categories] == ["cat", "car"]
    folder = model_folder("anna/cats")
    names = {"config.yaml", "categories.json", "model.safetensors", "score_thresholds.json", "quality.json"}
    assert downloaded(hub) == {file.name for file in folder.iterdir()} == names
    count = len(hub.requests)
    assert read_method("anna/cats") == "boxinst"  # without another request
    assert len(hub.requests) == count


def test_a_revision_is_pinned_and_the_newest_is_the_default(hub, files):
    repo = hub.add("anna/cats", files)
    first = repo.refs["v1"] = repo.refs["main"]
    repo.commit(files | {"categories.json": b'[{"id": 1, "name": "dog"}, {"id": 2, "name": "cow"}]'})
    names = {name: [c.name for c in boxel.load(name).categories] for name in ("anna/cats", "anna/cats@v1")}
    assert names == {"anna/cats": ["dog", "cow"], "anna/cats@v1": ["cat", "car"]}
    assert [c.name for c in boxel.load(f"anna/cats@{first}").categories] == ["cat", "car"]
    repo.commit(files)
    assert [c.name for c in boxel.load("anna/cats").categories] == ["cat", "car"]
    with pytest.raises(
        BoxelError, match=r"^anna/cats@v2: the model has no such revision; name a branch, a tag or"
    ):
        boxel.load("anna/cats@v2")


def test_a_private_model_needs_the_token_of_the_environment(hub, files, monkeypatch):
    hub.add("anna/cats", files, private=True)
    for name in ("anna/cats", "anna/dogs"):  # the hub does not tell the two apart
        with pytest.raises(BoxelError) as error:
            boxel.load(name)
        assert str(error.value) == (
            f"{name} is neither a folder nor a model on the Hugging Face Hub that your token may read; check the name, "
            f"and if it is private, {LOGIN}."
        )
    monkeypatch.setenv("HF_TOKEN", WRITER)
    assert len(boxel.load("anna/cats").categories) == 2
    monkeypatch.setenv("HF_TOKEN", "hf_expired")
    with pytest.raises(
        BoxelError, match=r"^anna/birds: the Hugging Face Hub does not accept your token; log in"
    ):
        boxel.load("anna/birds")


def test_without_a_network_the_cache_is_used(hub, files, monkeypatch):
    hub.add("anna/cats", files)
    boxel.load("anna/cats")
    for name, value in (("ENDPOINT", "http://127.0.0.1:9"), ("HF_HUB_OFFLINE", True)):
        monkeypatch.setattr(constants, name, value)
        assert len(boxel.load("anna/cats").categories) == 2
        with pytest.raises(
            BoxelError, match=r"^anna/dogs is not a folder, and http\S+ cannot be reached \(.*\); check"
        ):
            boxel.load("anna/dogs")


def test_weights_of_other_libraries_are_not_downloaded(hub):
    hub.add("anna/llm", {"config.json": b"{}", "model.safetensors": b"many gigabytes"})
    with pytest.raises(BoxelError) as error:
        boxel.load("anna/llm")
    assert str(error.value) == (
        "anna/llm: the model on the Hugging Face Hub is not one of boxel: it has no config.yaml; give the id of a "
        "model that `boxel push` has uploaded."
    )
    assert not downloaded(hub)


@pytest.mark.parametrize(
    ("source", "found"),
    [
        ("anna/cats", HubId("anna/cats", None)),
        ("anna/cats-v1.5@refs/pr/1", HubId("anna/cats-v1.5", "refs/pr/1")),
        ("here/cats", None),  # a folder of that name may be meant
        ("here/cats@main", HubId("here/cats", "main")),
        *(
            (name, None)
            for name in ("here", "cats", "a/b/c", "../cats", "./cats", "~/cats", "/runs/cats", "a/b@")
        ),
        *(
            (name, None)
            for name in ("results/cats.json", "weights/cats.pth", "sam:facebook/sam", "runs/", "")
        ),
    ],
)
def test_what_is_a_model_on_the_hub(source, found, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "here").mkdir()
    assert parse_hub_id(source) == found


@pytest.mark.slow
def test_it_serves_wherever_a_run_folder_does(hub, files, tmp_path, monkeypatch):
    hub.add("anna/cats", files)
    monkeypatch.chdir(tmp_path)
    truth = write_scenes(tmp_path / "data", 2, height=64, width=96)
    write(truth, tmp_path / "truth.json")
    images = ["--images", str(truth.root)]
    assert (
        main(["evaluate", "anna/cats", "truth.json", *images, "--class-agnostic", "--json", "metrics.json"])
        == 0
    )
    described = json.loads((tmp_path / "metrics.json").read_text())["info"]["boxel"]["inputs"]["subject"]
    assert described["sha256"] == sha256(files["model.safetensors"]).hexdigest()
    assert main(["export", "anna/cats", "model.onnx"]) == 0
    train = [
        "train",
        "boxinst",
        "truth.json",
        *images,
        "--init",
        "anna/cats",
        "--steps",
        "1",
        "--hints",
        "ellipse",
    ]
    assert main([*train, "--data.val-share", "0", "--augment.short-sides", "64", "--out", "tuned"]) == 0
    assert "init: anna/cats\n" in (tmp_path / "tuned" / "config.yaml").read_text()
    assert subject_kind("anna/cats") == "detector"
    assert read_start_settings("anna/cats")[1]["neck_channels"] == 40
    assert [category.name for category in read_start_weights("anna/cats").categories] == ["cat", "car"]
    assert np.array_equal(find_calibration("anna/cats").mean, find_calibration("boxcaseg").mean)
    pixels = np.asarray(Image.open(truth.image_path(0)).convert("RGB"))
    teacher = make_teacher("anna/cats", truth.categories, "cpu")
    assert teacher.name == "anna/cats"
    assert len(teacher(pixels, truth.boxes[:1].astype(np.float64), truth.labels[:1])) == 1


def test_a_box_to_mask_model_without_an_onnx_file_is_a_teacher(hub, tmp_path, tiny_boxcaseg):
    settings, folder = tiny_boxcaseg["model"], tmp_path / "runs" / "masks"
    save(
        build("boxcaseg", 1, settings),
        folder,
        {"method": "boxcaseg", "model": settings},
        [Category(1, "object")],
    )
    hub.add("anna/masks", {file.name: file.read_bytes() for file in folder.iterdir()})
    image = np.random.default_rng(0).integers(0, 255, (64, 96, 3), dtype=np.uint8)
    here, there = (boxel.BoxSegmenter(name)(image, [[8, 8, 60, 50]]) for name in (str(folder), "anna/masks"))
    assert here.rles == there.rles
