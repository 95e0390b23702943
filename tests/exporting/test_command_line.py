"""The command line runs exported files in processes that cannot import PyTorch, as it runs run folders with it."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

import boxel
from boxel.cli import main
from boxel.data.synthetic import write_scenes
from boxel.exporting import export
from boxel.models.io import save
from boxel.models.pretrained import model_folder

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("onnx_installed")]
WITHOUT_TORCH = """
import sys

class Hook:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {"torch", "torchvision", "timm", "lightning", "safetensors", "huggingface_hub"}:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Hook())
from boxel.cli import main
sys.exit(main(sys.argv[1:]))
"""


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory, boxinst, mask_rcnn, boxcaseg, segmenter) -> Path:
    """A folder with two scenes, and for each method a run folder and its file."""
    folder = tmp_path_factory.mktemp("work")
    data = write_scenes(folder / "data", 2, seed=3, height=96, width=128)
    (folder / "data" / "images" / "torn.png").write_bytes(data.image_path(0).read_bytes()[:300])
    models = {
        "boxinst": boxinst(5),
        "mask-rcnn": mask_rcnn(5),
        "boxcaseg": boxcaseg(),
        "fcrn": segmenter("fcrn"),
    }
    models["boxsup"] = segmenter("boxsup")
    for method, model in models.items():
        if method in ("boxinst", "mask-rcnn"):
            model.categories = data.categories
        config = {"method": method, "model": json.loads(json.dumps(vars(model.config))), **model.settings}
        save(model, folder / method, config, model.categories)
        if method == "boxinst":
            thresholds = {"all": 0.75, "by_class": {data.categories[0].name: 0.7}}
            (folder / method / "score_thresholds.json").write_text(json.dumps(thresholds))
        export(folder / method, folder / f"{method}.onnx", [data.image_path(0)])
    return folder


def run(work: Path, line: str) -> tuple[int, str, str]:
    """A command line without PyTorch: its exit code and what it prints."""
    command = [sys.executable, "-c", WITHOUT_TORCH, *line.split()]
    done = subprocess.run(command, capture_output=True, text=True, cwd=work)
    assert "Traceback" not in done.stderr
    return done.returncode, done.stdout, done.stderr


def files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.mark.parametrize(
    ("method", "flags"),
    [
        ("boxinst", "--draw-score best --score-threshold 0.6"),
        ("mask-rcnn", "--class-agnostic-nms --mask-nms 0.4 --batch-size 2"),
        ("boxcaseg", "--boxes data/boxes.json"),
        ("fcrn", "--long-side 64"),
        ("boxsup", ""),
    ],
)
def test_a_file_predicts_what_its_run_predicts(
    work: Path, monkeypatch, capsys, method: str, flags: str
) -> None:
    monkeypatch.chdir(work)
    semantic = method in ("fcrn", "boxsup")
    out = f"{method}-maps" if semantic else f"{method}.json"
    code, printed, logged = run(
        work, f"predict {method}.onnx data/images --out o/{out} --draw o/{method} {flags}"
    )
    assert code == 1 and "skipped: data/images/torn.png: " in logged, logged
    assert main(f"predict {method} data/images --out t/{out} --draw t/{method} {flags}".split()) == 1
    assert printed == capsys.readouterr().out.replace("t/", "o/")
    ours, theirs = work / "o" / out, work / "t" / out
    if semantic:
        assert files(ours).keys() == files(theirs).keys() and len(files(ours)) == 2
        assert sum(a == b for a, b in zip(files(ours).values(), files(theirs).values(), strict=True)) >= 1
    else:
        rows, expected = (json.loads(file.read_text()) for file in (ours, theirs))
        assert len(rows) == len(expected) > 4
        for row, other in zip(rows, expected, strict=True):
            assert row.keys() == other.keys()
            assert [row[k] for k in ("image_id", "category_id", "file_name")] == [
                other[k] for k in ("image_id", "category_id", "file_name")
            ]
            assert row["bbox"] == pytest.approx(other["bbox"], abs=0.02)
            assert row["score"] == pytest.approx(other["score"], abs=1e-4)
    assert files(work / "o" / method).keys() == files(work / "t" / method).keys()


@pytest.mark.parametrize(
    ("method", "flags"), [("boxinst", "--score-threshold best --no-boundary"), ("boxcaseg", ""), ("fcrn", "")]
)
def test_a_file_is_evaluated_like_its_run(work: Path, monkeypatch, method: str, flags: str) -> None:
    monkeypatch.chdir(work)
    truth = "data/masks.json"
    if method == "fcrn":  # whose classes are others
        text = json.loads(Path(truth).read_text())
        for number, category in enumerate(text["categories"]):
            category["name"] = f"class {number}"
        Path("data/classes.json").write_text(json.dumps(text))
        truth = "data/classes.json"
    code, _, logged = run(work, f"evaluate {method}.onnx {truth} --json m.json {flags}")
    assert code == 0, logged
    assert main(f"evaluate {method} {truth} --json n.json {flags}".split()) == 0
    ours, theirs = (json.loads(Path(name).read_text()) for name in ("m.json", "n.json"))
    assert ours.pop("info") and theirs.pop("info")

    def flatten(values: dict, prefix: str = "") -> dict:
        pairs = values.items()
        inner = [flatten(v, f"{prefix}{k}.") if isinstance(v, dict) else {prefix + k: v} for k, v in pairs]
        return {name: value for part in inner for name, value in part.items()}

    numbers, others = flatten(ours), flatten(theirs)
    assert numbers.keys() == others.keys() and len(numbers) > 3
    for name, value in numbers.items():
        assert value == (pytest.approx(others[name], abs=2e-3) if isinstance(value, float) else others[name])


@pytest.mark.parametrize(
    ("line", "code", "message"),
    [
        (
            "predict boxinst.onnx data/images --flip",
            2,
            "--flip cannot be used with an exported file; leave it out",
        ),
        (
            "predict boxinst.onnx data/images --device cuda",
            2,
            "--device is cuda, but exported files run on the CPU",
        ),
        ("predict fcrn.onnx data/images --crf", 2, "--crf cannot be used with an exported file"),
        (
            "predict fcrn.onnx data/images --short-side 64",
            2,
            "--short-side does nothing here, since fcrn.onnx is",
        ),
        (
            "predict boxcaseg.onnx data/images",
            2,
            "predicts masks for given boxes; give either --boxes or --detector",
        ),
        (
            "predict boxcaseg.onnx data/images --detector fcrn.onnx",
            1,
            "the model (ExportedSegmenter) predicts no instances",
        ),
        ("predict mask-rcnn.onnx data/images --draw-score best", 2, "the model has no score thresholds"),
        ("predict gone.onnx data/images", 1, "gone.onnx: there is no such file; check the path."),
        (
            "predict boxinst data/images",
            1,
            "boxel.load needs torch, which is not installed; pip install 'boxel[train]'",
        ),
        (
            "evaluate boxinst.onnx data/masks.json --scales 1,2",
            2,
            "--scales cannot be used with an exported file",
        ),
        ("evaluate boxinst.onnx data/masks.json --true-classes", 1, "needs torch, which is not installed"),
        (
            "label data/boxes.json --teacher boxinst.onnx --out x.json",
            2,
            "boxinst.onnx is of boxinst, which takes no boxes",
        ),
    ],
)
def test_what_a_file_cannot_do_is_one_sentence(work: Path, line: str, code: int, message: str) -> None:
    found, printed, logged = run(work, line)
    assert (found, printed) == (code, "") and message in logged
    assert logged.splitlines()[-1].startswith("boxel: ")


def test_a_boxcaseg_takes_the_boxes_of_a_detector_and_labels(work: Path) -> None:
    code, printed, logged = run(
        work, "predict boxcaseg.onnx data/images --detector boxinst.onnx --out d.json"
    )
    assert code == 1 and "instances in 2 images" in printed, logged
    bundled = model_folder("boxcaseg") / "model.onnx"
    code, _, logged = run(work, f"label data/boxes.json --teacher {bundled} --out a.json")
    assert code == 0, logged
    assert run(work, f"label data/boxes.json --teacher {bundled.parent} --out b.json")[0] == 0
    ours, theirs = (boxel.read(work / name) for name in ("a.json", "b.json"))
    assert ours.has_mask.any() and ours.segmentations.tolist() == theirs.segmentations.tolist()


def test_an_old_result_stays_if_no_image_can_be_predicted_on(
    work: Path, capsys: pytest.CaptureFixture
) -> None:
    old, torn = work / "old.json", str(work / "data" / "images" / "torn.png")
    old.write_text("[]")
    assert main(["predict", str(work / "boxinst.onnx"), torn, "--out", str(old)]) == 1
    assert "old.json is not written: none of its images can be predicted on.\n" in capsys.readouterr().err
    assert old.read_text() == "[]"


@pytest.mark.parametrize(
    ("line", "code", "message"),
    [
        (
            "predict boxinst.onnx data/images --every 2",
            2,
            "--every does nothing here, since there is no video",
        ),
        (
            "predict fcrn.onnx data/images --out a.geojson",
            2,
            "label maps are written into a folder; name one",
        ),
        (
            "export boxinst model.bin",
            2,
            "model.bin: exported files are known by their suffix; end the name in .onnx",
        ),
        (
            "export boxinst.onnx again.onnx",
            1,
            "boxinst.onnx is an exported model, and a run folder is needed here",
        ),
    ],
)
def test_what_would_be_another_result_is_refused(
    work: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture,
    line: str,
    code: int,
    message: str,
) -> None:
    monkeypatch.chdir(work)
    assert main(line.split()) == code
    assert message in capsys.readouterr().err
