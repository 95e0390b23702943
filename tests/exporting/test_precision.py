"""Files of float16 and int8: what becomes smaller, what stays float32, and what is refused."""

from collections import Counter
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from boxel.exporting import export
from boxel.exporting.boxinst import BoxInstGraph
from boxel.exporting.check import InstanceCheck, LabelCheck, LogitCheck, compare_all
from boxel.exporting.mask_rcnn import MaskRCNNGraph
from boxel.exporting.onnx import make_graph, trace
from boxel.exporting.precision import LAYERS, to_float16, to_int8
from boxel.utils.errors import BoxelError, UsageError
from boxel.utils.onnx import load_session

needs_onnx = pytest.mark.usefixtures("onnx_installed")


def build(request: pytest.FixtureRequest, name: str) -> Any:
    build_model = request.getfixturevalue(name)
    return build_model("fcrn") if name == "segmenter" else build_model()


def layer_types(path: Path) -> dict[str, int]:
    """The data type of the weights of each layer, by its name."""
    import onnx

    graph = onnx.load(path).graph
    types = {tensor.name: tensor.data_type for tensor in graph.initializer}
    types |= {
        node.output[0]: types.get(node.input[0], 0) for node in graph.node if "Dequantize" in node.op_type
    }
    return {node.name: types.get(node.input[1], 0) for node in graph.node if node.op_type in LAYERS}


@pytest.mark.slow
@needs_onnx
@pytest.mark.parametrize("name", ["boxinst", "mask_rcnn", "boxcaseg", "segmenter"])
def test_float16_halves_the_file_and_keeps_the_results(
    request: pytest.FixtureRequest, name: str, photo: Path, tmp_path: Path
) -> None:
    from onnx import TensorProto

    model = build(request, name)
    check = export(model, tmp_path / "half.onnx", [photo], "float16")
    export(model, tmp_path / "full.onnx", [photo])
    sizes = [(tmp_path / file).stat().st_size for file in ("half.onnx", "full.onnx")]
    assert check.agrees and check.precision == "float16"
    assert 0.45 < sizes[0] / sizes[1] < 0.6
    session = load_session(tmp_path / "half.onnx")
    floats = [
        value.type for value in (*session.get_inputs(), *session.get_outputs()) if "float" in value.type
    ]
    assert floats and set(floats) == {"tensor(float)"}
    assert session.get_modelmeta().custom_metadata_map["precision"] == "float16"
    # The dynamic mask head has no weights of its own, and the controller is applied to instances.
    own = {layer: kind for layer, kind in layer_types(tmp_path / "half.onnx").items() if layer.count("/") > 1}
    assert len(own) > 5 and set(own.values()) == {TensorProto.FLOAT16}


@pytest.mark.slow
@needs_onnx
def test_boxes_never_pass_through_float16(boxinst: Any, tmp_path: Path) -> None:
    """Pixels of large images have no exact half."""
    import onnx

    trace(BoxInstGraph(boxinst()).eval(), tmp_path / "model.onnx")
    to_float16(tmp_path / "model.onnx")
    graph = onnx.load(tmp_path / "model.onnx").graph
    sources = {name: node for node in graph.node for name in node.output}
    halved = [node for node in graph.node if node.op_type == "Cast" and node.output[0].endswith("_half")]
    makers = {sources[node.input[0]].name for node in halved if node.input[0] in sources}
    # The picture, what is normalized, and what is reshaped between the layers; no decoding, no NMS.
    assert makers and all(name.count("/") > 1 for name in makers)


@pytest.mark.slow
@needs_onnx
@pytest.mark.parametrize("name", ["boxcaseg", "segmenter"])
def test_int8_is_a_quarter_and_draws_the_same_masks(
    request: pytest.FixtureRequest, name: str, photo: Path, tmp_path: Path
) -> None:
    model = build(request, name)
    check = export(model, tmp_path / "small.onnx", [photo, photo], "int8")
    export(model, tmp_path / "full.onnx", [photo])
    sizes = [(tmp_path / file).stat().st_size for file in ("small.onnx", "full.onnx")]
    assert check.agrees and check.precision == "int8"
    assert sizes[0] / sizes[1] < 0.4
    about = load_session(tmp_path / "small.onnx").get_modelmeta().custom_metadata_map
    assert about["precision"] == "int8" and about["method"] in ("boxcaseg", "fcrn")


@pytest.mark.slow
@needs_onnx
@pytest.mark.parametrize("name", ["boxinst", "mask_rcnn"])
def test_layers_of_several_levels_and_last_layers_are_not_quantized(
    request: pytest.FixtureRequest, name: str, pixels: NDArray[np.uint8], tmp_path: Path
) -> None:
    from onnx import TensorProto

    graph = {"boxinst": BoxInstGraph, "mask_rcnn": MaskRCNNGraph}[name](build(request, name)).eval()
    path = tmp_path / "model.onnx"
    trace(graph, path)
    images = pixels[None, :96, :128].transpose(0, 3, 1, 2).astype(np.float32) / 255
    to_int8(path, [{"images": images}])
    kinds = layer_types(path)
    quantized = {layer for layer, kind in kinds.items() if kind == TensorProto.INT8}
    assert Counter(layer.split("/")[1] for layer in quantized)["backbone"] > 8
    kept = {"boxinst": ("/head/", "/mask_branch/out/"), "mask_rcnn": ("/head/", "/box_predictor/")}[name]
    assert not [layer for layer in quantized if layer.startswith(kept)]
    *_, image_index = load_session(path).run(None, {"images": images})
    assert len(image_index) > 0


def test_int8_needs_images_to_measure_ranges_on(boxinst: Any, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"`precision` is int8 and there are no `images`; give 20 or more"):
        export(boxinst(), tmp_path / "model.onnx", precision="int8")


@pytest.mark.slow
@needs_onnx
def test_a_file_that_lost_too_much_is_not_written(
    segmenter: Any, photo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import onnx
    from onnx import numpy_helper

    from boxel.exporting import onnx as module

    def spoil(path: Path) -> None:
        model = onnx.load(path)
        for tensor in model.graph.initializer:
            values = numpy_helper.to_array(tensor)
            if values.ndim == 4:
                tensor.CopyFrom(numpy_helper.from_array(-values, tensor.name))
        onnx.save(model, path)

    monkeypatch.setattr(module, "to_float16", spoil)
    with pytest.raises(BoxelError, match=r"model\.onnx is not written: .*; choose another precision"):
        export(segmenter("fcrn"), tmp_path / "model.onnx", [photo], "float16")
    assert not (tmp_path / "model.onnx").exists()


def test_losses_of_a_precision_are_means(boxinst: Any, pixels: NDArray[np.uint8]) -> None:
    expected = boxinst().predict(pixels)
    count = len(expected)
    moved = replace(expected, scores=expected.scores + np.float32(0.5) * (np.arange(count) == 0))
    check = compare_all([expected, expected], [expected, moved], "int8")
    assert check.instances == 2 * count > 20 and check.unmatched == 0 and check.agrees
    assert check.score == pytest.approx(0.5 / (2 * count))
    assert compare_all([expected], [moved]).score == pytest.approx(0.5)
    assert str(check).startswith(
        f"{2 * count} instances, 0 unmatched, on average boxes differ by 0 px, scores by "
    )


def test_what_each_precision_may_lose() -> None:
    assert InstanceCheck(10, 1, 1.0, 0.01, 0.97, "float16").agrees
    for worse in ({"unmatched": 2}, {"box": 1.1}, {"score": 0.02}, {"mask_iou": 0.96}, {"score": np.nan}):
        assert not replace(InstanceCheck(10, 1, 1.0, 0.01, 0.97, "float16"), **worse).agrees
    assert InstanceCheck(10, 10, 9.0, 0.1, 0.8, "int8").agrees
    assert not InstanceCheck(10, 11, 9.0, 0.1, 0.8, "int8").agrees
    assert LogitCheck(2, 3.0, 0.8, "int8").agrees and not LogitCheck(2, 3.0, 0.79, "int8").agrees
    assert str(LogitCheck(2, 3.0, 0.8, "int8")) == "2 crops, logits within 3, mean mask IoU 0.8000"
    assert LabelCheck(1000, 50, 0.9, "int8").agrees and not LabelCheck(1000, 51, 0.9, "int8").agrees
    assert LabelCheck(1000, 5, 0.05, "float16").agrees and not LabelCheck(1000, 6, 0.05, "float16").agrees


class OpenVINOSession:
    """A file that OpenVINO runs, in the place of a session of onnxruntime."""

    def __init__(self, path: Path) -> None:
        openvino = pytest.importorskip("openvino", reason="openvino is not installed: pip install openvino")
        core = openvino.Core()
        # Without it OpenVINO computes in bfloat16 on CPUs that have it.
        self._model = core.compile_model(core.read_model(path), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})

    def get_inputs(self) -> list[Any]:
        return [SimpleNamespace(name=value.any_name) for value in self._model.inputs]

    def run(self, _: None, given: dict[str, Any]) -> list[Any]:
        found = self._model(given)
        return [found[value] for value in self._model.outputs]


@pytest.mark.slow
@needs_onnx
@pytest.mark.parametrize("name", ["boxinst", "mask_rcnn", "boxcaseg", "segmenter"])
def test_openvino_gives_the_results_of_torch(
    request: pytest.FixtureRequest, name: str, pixels: NDArray[np.uint8], tmp_path: Path
) -> None:
    model = build(request, name)
    graph = make_graph(model)
    assert graph is not None
    trace(graph, tmp_path / "model.onnx")
    runner = graph.runtime(model, OpenVINOSession(tmp_path / "model.onnx"))
    check = graph.check(model, runner, [pixels, pixels[:200, 30:411]])
    assert check.agrees, check
    assert "nothing was compared" not in str(check)
