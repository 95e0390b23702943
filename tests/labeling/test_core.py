"""Labeling without PyTorch: bundled and trained networks as ONNX files."""

import json
import subprocess
import sys
from dataclasses import replace
from importlib import import_module

import numpy as np
import pytest
import torch

import boxel
from boxel.cli import main
from boxel.data import read, write
from boxel.data.synthetic import write_scenes
from boxel.labeling.api import label_data
from boxel.labeling.teachers import detector, make_teacher
from boxel.labeling.teachers.boxcaseg import BoxCasegTeacher, identify, open_network
from boxel.models.io import load
from boxel.models.pretrained import model_digests, model_folder
from boxel.training import few_masks
from boxel.utils.errors import CPU_BUILD
from boxel.utils.onnx import load_session

TEACHERS = ("boxcaseg", "boxcaseg-boxes")  # bundled networks that run without PyTorch

WITHOUT_TORCH = """
import sys

FORBIDDEN = set("torch torchvision timm lightning safetensors skimage higra matplotlib supervision".split())

class Hook:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in FORBIDDEN:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Hook())
"""
"""Code that makes imports of optional packages fail, as if they were not installed."""


def run_without_torch(code, *arguments):
    """Run code in a process in which optional packages cannot be imported."""
    command = [sys.executable, "-c", WITHOUT_TORCH + code, *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def scenes(tmp_path_factory):
    folder = tmp_path_factory.mktemp("scenes")
    write_scenes(folder, 2, height=160, width=224)
    return folder / "masks.json"


def torch_teacher(name):
    """The bundled network run by PyTorch, as on a GPU."""
    model = load(name)
    identity = identify(model_folder(name))
    return BoxCasegTeacher(model.soft_masks, name, identity, model.config.threshold)


@pytest.mark.slow
@pytest.mark.parametrize("name", TEACHERS)
def test_the_file_belongs_to_the_weights_and_states_how_to_run_it(name):
    folder = model_folder(name)
    assert (folder / "model.onnx").stat().st_size < 0.5e6
    about = load_session(folder / "model.onnx").get_modelmeta().custom_metadata_map
    config = load(name).config
    assert about["method"] == "boxcaseg" and about["weights"] == model_digests(folder)["weights"]
    assert json.loads(about["side"]) == config.side and json.loads(about["margin"]) == config.margin


@pytest.mark.slow
@pytest.mark.parametrize("name", TEACHERS)
def test_logits_match_torch(name, scenes):
    data = read(scenes)
    image, boxes = np.random.default_rng(0).integers(0, 256, (90, 120, 3), dtype=np.uint8), data.boxes[:9] / 2
    ours, theirs = (
        open_network(name).soft_masks(image, boxes),
        load(name).soft_masks(image, boxes),
    )
    np.testing.assert_allclose(ours[0], theirs[0], atol=1e-3)
    np.testing.assert_array_equal(ours[1], theirs[1])
    np.testing.assert_allclose(ours[2], theirs[2], atol=1e-5)
    empty = open_network(name).soft_masks(image, boxes[:0])
    assert [len(part) for part in empty] == [0, 0, 0]


@pytest.mark.slow
def test_labels_match_torch_and_are_one_job(scenes, tmp_path):
    """At most 0.1 % of the pixels differ, and a job begun by one is continued by the other."""
    data = read(scenes).without_masks()
    out = tmp_path / "masks.json"
    first = label_data(data, teacher="boxcaseg", device="cpu", out=out).data
    again = label_data(data, teacher=torch_teacher("boxcaseg"), out=out)
    assert (again.labeled, again.reused) == (0, 2)
    second = label_data(data, teacher=torch_teacher("boxcaseg")).data
    differing = pixels = 0
    for k in range(len(data.ids)):
        a, b = first.mask(k), second.mask(k)
        differing, pixels = differing + (a != b).sum(), pixels + a.sum()
    assert differing <= 1e-3 * pixels
    np.testing.assert_allclose(first.quality, second.quality, atol=1e-3)


@pytest.mark.slow
def test_a_bundled_model_has_one_identity_on_every_device():
    on_gpu = detector.load_teacher("boxcaseg", (), "cpu")  # the path that a GPU takes
    assert on_gpu.identity == make_teacher("boxcaseg", device="cpu").identity


@pytest.mark.slow
def test_labeling_works_without_torch(scenes, tmp_path):
    """Public functions label, write and read a dataset in a process that cannot import PyTorch."""
    code = """
import boxel
data = boxel.read(sys.argv[1]).without_masks()
made = boxel.label(data, out=sys.argv[2], drop=0.3)
assert made.has_segmentation.all() and (made.quality > 0).all()
try:
    boxel.label(data, teacher="sam:x/y")
except boxel.BoxelError as error:
    print(error)
try:
    boxel.predict("boxinst", data.root)
except ImportError as error:
    print(error)
result = boxel.BoxSegmenter(drop=0.3)(data.image_path(0), data.boxes[data.instances_in(0)])
assert result.plot().shape == result.image.shape
print([str(rle["counts"]) for rle in result.rles] == [made.rle(i)["counts"] for i in made.instances_in(0)])
print(sorted(FORBIDDEN & set(sys.modules)))
"""
    printed = run_without_torch(code, scenes, tmp_path / "masks.json").splitlines()
    assert printed[-4:] == [
        f"sam:x/y needs torch, which is not installed; pip install 'boxel[train]' ({CPU_BUILD}).",
        f"boxel.load needs torch, which is not installed; pip install 'boxel[train]' ({CPU_BUILD}).",
        "True",
        "[]",
    ]
    here = label_data(read(scenes).without_masks(), drop=0.3, device="cpu").data
    assert here.segmentations.tolist() == read(tmp_path / "masks.json").segmentations.tolist()


@pytest.fixture(scope="module")
def adapted(scenes, tmp_path_factory, tiny_boxcaseg):
    """A model that the command line has adapted to the masks of the scenes, which changes its weights."""
    pytest.importorskip("onnx", reason="onnx is not installed: pip install 'boxel[onnx]'")
    folder = tmp_path_factory.mktemp("adapted")
    boxel.train("boxcaseg", read(scenes).without_masks(), out=folder / "new", config=tiny_boxcaseg)
    words = ["adapt", scenes, "--teacher", folder / "new", "--out", folder / "out", "--minutes", "0.05"]

    def learn(model, data, minutes):
        """Two steps, whether they gain anything or not."""
        found = few_masks.learn_masks(model, data, minutes)
        *_, tuned = few_masks.tune(model, data, np.arange(len(data.labels)), 2, seed=0)
        return replace(found, model=tuned.eval(), steps=2)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(import_module("boxel.training.adapt"), "learn_masks", learn)
        assert main([*map(str, words)]) == 0
    weights = [load(folder / name).state_dict()["heads.shared.0.weight"] for name in ("new", "out")]
    assert not torch.equal(*weights)
    return folder / "out"


@pytest.mark.slow
def test_an_adapted_model_labels_without_torch(scenes, adapted, tmp_path):
    """The command writes what PyTorch predicts, and the two are one job."""
    boxes = tmp_path / "boxes.json"
    write(read(scenes).without_masks(), boxes)
    words = ["label", boxes, "--images", scenes.parent, "--teacher", adapted, "--device", "cpu"]
    code = """
from boxel.cli import main
status = main(sys.argv[1:])
print(status, sorted(FORBIDDEN & set(sys.modules)))
"""
    out = tmp_path / "masks.json"
    printed = run_without_torch(code, *words, "--out", out)
    assert printed.splitlines()[-1] == "0 []"
    by_torch = detector.load_teacher(str(adapted), (), "cpu")
    again = label_data(read(boxes, images=scenes.parent), teacher=by_torch, out=out)
    assert (again.labeled, again.reused) == (0, 2)
    model = load(adapted)
    alone = BoxCasegTeacher(model.soft_masks, str(adapted), threshold=model.config.threshold)
    expected = label_data(read(boxes, images=scenes.parent), teacher=alone).data
    made = read(out, images=scenes.parent)
    assert made.has_segmentation.all() and set(made.source) == {adapted.as_posix()}
    differing = sum((made.mask(k) != expected.mask(k)).sum() for k in range(len(made.ids)))
    assert differing <= 1e-3 * sum(expected.mask(k).sum() for k in range(len(made.ids)))
    np.testing.assert_allclose(made.quality, expected.quality, atol=1e-3)


@pytest.mark.slow
def test_an_adapted_model_is_evaluated_and_exported(scenes, adapted, tmp_path, capsys):
    images = ["--images", str(scenes.parent)]
    assert main(["evaluate", str(adapted), str(scenes), *images]) == 0
    assert "mask" in capsys.readouterr().out
    assert main(["export", str(adapted), str(tmp_path / "model.onnx")]) == 0
    beside, again = (load_session(f / "model.onnx").get_modelmeta() for f in (adapted, tmp_path))
    assert beside.custom_metadata_map == again.custom_metadata_map
