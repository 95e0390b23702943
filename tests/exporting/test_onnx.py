"""`export`: from a model to a checked file, or to an error with a remedy."""

import sys
from pathlib import Path

import pytest
import torch

from boxel import __version__
from boxel.exporting import export
from boxel.exporting import onnx as module
from boxel.models import io
from boxel.utils.errors import BoxelError

needs_onnx = pytest.mark.usefixtures("onnx_installed")


def metadata(path: Path) -> dict[str, str]:
    from boxel.utils.onnx import load_session

    return load_session(path).get_modelmeta().custom_metadata_map


@pytest.mark.slow
@needs_onnx
def test_a_model_folder(boxinst, photo, tmp_path):
    model = boxinst()
    config = {"method": "boxinst", "model": vars(model.config), **model.settings}
    io.save(model, tmp_path / "run", config, model.categories)
    path = tmp_path / "new" / "model.onnx"
    check = export(tmp_path / "run", path, [photo])
    assert check.agrees and check.instances > 10
    assert [file.name for file in path.parent.iterdir()] == ["model.onnx"]
    about = metadata(path)
    assert about["method"] == "boxinst" and about["boxel"] == __version__ and about["short_side"] == "96"


@pytest.mark.slow
@needs_onnx
def test_a_model_in_memory_and_photos_that_are_installed(boxcaseg, tmp_path):
    model = boxcaseg().train()
    check = export(model, tmp_path / "model.onnx")
    assert check.agrees and check.crops == 8
    assert model.training  # what was given stays as it is
    assert metadata(tmp_path / "model.onnx")["method"] == "boxcaseg"


@pytest.mark.slow
@needs_onnx
@pytest.mark.parametrize("kind", ["boxinst", "boxcaseg"])
def test_a_file_that_differs_is_not_written(kind, photo, tmp_path, monkeypatch, request):
    def trace_another(graph, path):
        with torch.no_grad():
            for name, weight in graph.named_parameters():
                weight += 0.01 * (1 + weight.abs()) if name.endswith("bias") else 0
        trace(graph, path)
        graph.load_state_dict(state)

    model = request.getfixturevalue(kind)()
    trace, path = module.trace, tmp_path / "model.onnx"
    state = {f"model.{name}": value.clone() for name, value in model.state_dict().items()}
    monkeypatch.setattr(module, "trace", trace_another)
    path.write_text("an earlier one")
    with pytest.raises(BoxelError, match=r"model\.onnx is not written: onnxruntime and torch differ"):
        export(model, path, [photo])
    assert path.read_text() == "an earlier one" and list(tmp_path.iterdir()) == [path]


@needs_onnx
def test_an_error_of_the_exporter_is_one_sentence(boxinst, photo, tmp_path, monkeypatch):
    def fail(*_):
        raise RuntimeError("Unsupported: aten::magic.\nmore")

    monkeypatch.setattr(module, "trace", fail)
    with pytest.raises(BoxelError, match=r"model\.onnx: .*\(Unsupported: aten::magic\); train it with"):
        export(boxinst(), tmp_path / "model.onnx", [photo])


@needs_onnx
def test_models_without_an_exporter_are_refused(tmp_path):
    with pytest.raises(
        BoxelError, match="a Linear cannot be exported; models of boxinst, mask-rcnn, boxcaseg, fcrn"
    ):
        export(torch.nn.Linear(1, 1), tmp_path / "model.onnx")


@needs_onnx
def test_a_damaged_file_is_refused(tmp_path):
    from boxel.utils.onnx import load_session

    path = tmp_path / "model.onnx"
    path.write_bytes(b"nothing")
    with pytest.raises(BoxelError, match=r"model\.onnx: onnxruntime .* cannot run this file"):
        load_session(path)


def test_without_the_extra(boxinst, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(BoxelError, match=r"needs onnx, .* pip install 'boxel\[onnx\]'"):
        export(boxinst(), tmp_path / "model.onnx")
