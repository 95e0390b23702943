"""The teacher against transformers' own processor, model and post-processing, on small random networks."""

import json
import shutil
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from threading import Event
from time import sleep
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from safetensors.torch import load_file, save_file

import boxel
from boxel.cli.main import main
from boxel.data.images import read_image
from boxel.labeling.api import label_data
from boxel.labeling.teachers import make_teacher, sam
from boxel.labeling.teachers.base import SoftMask
from boxel.labeling.teachers.sam import SamTeacher
from boxel.masks.boxes import Region, pixel_region
from boxel.utils.errors import BoxelError

transformers = pytest.importorskip("transformers", minversion="4.56", reason="transformers is not installed")

WIDTH = 16
PROMPTS = {"hidden_size": WIDTH, "mask_input_channels": 4}
DECODER = {
    "hidden_size": WIDTH,
    "mlp_dim": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "iou_head_hidden_dim": 8,
    "iou_head_depth": 2,
}
PYRAMID = {"fpn_hidden_size": WIDTH, "backbone_feature_sizes": [[16, 16], [8, 8], [4, 4]]}


def small_sam(family: str = "Sam", **decoder: Any) -> tuple[Any, Any]:
    vision = {
        "hidden_size": 8,
        "output_channels": WIDTH,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "image_size": 64,
        "mlp_dim": 16,
        "global_attn_indexes": [0],
        "num_pos_feats": WIDTH // 2,
    }
    prompts = {**PROMPTS, "image_size": 64, "image_embedding_size": 4}
    config = family_class(family, "Config")(
        vision_config=vision, prompt_encoder_config=prompts, mask_decoder_config=DECODER | decoder
    )
    shown = transformers.SamImageProcessor(size={"longest_edge": 64}, pad_size={"height": 64, "width": 64})
    return family_class(family, "Model")(config), family_class(family, "Processor")(shown)


def small_sam_hq() -> tuple[Any, Any]:
    return small_sam("SamHQ", vit_dim=8)


def family_class(family: str, kind: str) -> Any:
    if not hasattr(transformers, family + kind):
        pytest.skip(f"transformers {transformers.__version__} has no {family}")
    return getattr(transformers, family + kind)


def small_edgetam(family: str = "EdgeTam", **more: Any) -> tuple[Any, Any]:
    pytest.importorskip("timm")
    backbone = {
        "model_type": "timm_wrapper",
        "architecture": "resnet10t",
        "model_args": {"in_chans": 3, "features_only": True, "out_indices": [1, 2, 3, 4]},
        "num_classes": 1000,
        "label_names": [str(label) for label in range(1000)],
    }
    channels = {"backbone_channel_list": [512, 256, 128, 64]}
    vision = {"model_type": "edgetam_vision_model", "backbone_config": backbone, **channels, **PYRAMID}
    config = family_class(family, "Config")(
        vision_config=vision,
        prompt_encoder_config={**PROMPTS, "image_size": 64},
        mask_decoder_config=DECODER,
        **more,
    )
    shown = image_processor("Sam2")(size={"height": 64, "width": 64})
    return family_class(family, "Model")(config), transformers.Sam2Processor(shown)


def small_sam2(family: str = "Sam2", **more: Any) -> tuple[Any, Any]:
    backbone = {
        "model_type": "sam2_hiera_det_model",
        "hidden_size": 8,
        "image_size": [64, 64],
        "blocks_per_stage": [1, 2, 1, 1],
        "embed_dim_per_stage": [8, 16, 32, 64],
        "num_attention_heads_per_stage": [1, 1, 2, 2],
        "window_size_per_stage": [4, 4, 2, 2],
        "global_attention_blocks": [2],
    }
    vision = {"backbone_config": backbone, "backbone_channel_list": [64, 32, 16, 8], **PYRAMID}
    config = getattr(transformers, f"{family}Config")(
        vision_config=vision,
        prompt_encoder_config={**PROMPTS, "image_size": 64},
        mask_decoder_config=DECODER,
        **more,
    )
    shown = image_processor("Sam2")(size={"height": 64, "width": 64})
    return getattr(transformers, f"{family}Model")(config), transformers.Sam2Processor(shown)


def small_sam2_video() -> tuple[Any, Any]:
    return small_sam2(
        "Sam2Video",
        image_size=64,
        memory_attention_hidden_size=WIDTH,
        memory_attention_num_layers=1,
        memory_attention_feed_forward_hidden_size=16,
        memory_attention_rope_feat_sizes=[4, 4],
        memory_encoder_hidden_size=WIDTH,
        memory_encoder_output_channels=WIDTH,
        mask_downsampler_embed_dim=WIDTH,
        memory_fuser_embed_dim=WIDTH,
        memory_fuser_intermediate_dim=16,
    )


def small_edgetam_video() -> tuple[Any, Any]:
    return small_edgetam(
        "EdgeTamVideo",
        image_size=64,
        memory_attention_hidden_size=WIDTH,
        memory_attention_num_layers=1,
        memory_attention_mlp_hidden_size=16,
        memory_attention_rope_feat_sizes=[4, 4],
        memory_encoder_hidden_size=WIDTH,
        memory_encoder_output_channels=WIDTH,
        mask_downsampler_embed_dim=WIDTH,
        memory_fuser_embed_dim=WIDTH,
        memory_fuser_intermediate_dim=16,
    )


def small_sam3() -> tuple[Any, Any]:
    make = family_class("Sam3Tracker", "Model")
    backbone = {
        "model_type": "sam3_vit_model",
        "hidden_size": 16,
        "intermediate_size": 16,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "image_size": 56,
        "window_size": 2,
        "global_attn_indexes": [0],
        "pretrain_image_size": 28,
    }
    config = transformers.Sam3TrackerConfig(
        vision_config={"model_type": "sam3_vision_model", "backbone_config": backbone, **PYRAMID},
        prompt_encoder_config={**PROMPTS, "image_size": 56},
        mask_decoder_config=DECODER,
    )
    shown = image_processor("Sam3")(size={"height": 56, "width": 56})
    return make(config), transformers.Sam3TrackerProcessor(shown)


def image_processor(family: str) -> Any:
    """The only one the family has, which older versions call fast."""
    name = f"{family}ImageProcessor"
    return getattr(transformers, name, None) or getattr(transformers, f"{name}Fast")


FAMILIES = {
    "sam": small_sam,
    "sam_hq": small_sam_hq,
    "sam2": small_sam2,
    "sam2_video": small_sam2_video,
    "edgetam": small_edgetam,
    "edgetam_video": small_edgetam_video,
    "sam3_tracker": small_sam3,
}


@dataclass
class Network:
    """A family's small network: its folder, and transformers' own model and processor."""

    folder: Path
    model: Any
    processor: Any

    def masks(
        self, image: NDArray[np.uint8], boxes: NDArray[np.float64], prompts: NDArray[np.float32] | None = None
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """(N, H, W) logits and (N,) predicted IoU, as transformers' manual makes them; with (N, h, w) masks as prompts
        too, box by box."""
        if prompts is not None:
            alone = [
                self._masks(image, boxes[k : k + 1], prompts[None, k : k + 1]) for k in range(len(boxes))
            ]
            return np.concatenate([masks for masks, _ in alone]), np.concatenate([ious for _, ious in alone])
        return self._masks(image, boxes)

    def _masks(
        self, image: NDArray[np.uint8], boxes: NDArray[np.float64], prompt: NDArray[np.float32] | None = None
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        inputs = self.processor(Image.fromarray(image), input_boxes=[boxes.tolist()], return_tensors="pt")
        given = {} if prompt is None else {"input_masks": torch.from_numpy(prompt)}
        with torch.no_grad():
            outputs = self.model(
                pixel_values=inputs["pixel_values"],
                input_boxes=inputs["input_boxes"],
                **given,
                multimask_output=False,
            )
        sizes = [inputs["original_sizes"]]
        if "reshaped_input_sizes" in inputs:
            sizes.append(inputs["reshaped_input_sizes"])
        masks = self.processor.post_process_masks(outputs.pred_masks, *sizes, binarize=False)[0].numpy()
        ious = outputs.iou_scores[0].numpy()
        return masks[:, 0], ious[:, 0]


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Network]:
    """A family's network, its weights such that boxes make a difference to logits of about 1."""

    @cache
    def make(family: str) -> Network:
        folder = tmp_path_factory.mktemp(family)
        model, processor = FAMILIES[family]()
        torch.manual_seed(0)
        with torch.no_grad():
            for parameter in model.parameters():
                if parameter.ndim > 1:
                    parameter.normal_(std=parameter[0].numel() ** -0.5)
        model.save_pretrained(folder)
        processor.save_pretrained(folder)
        processor = type(processor).from_pretrained(folder)  # which some versions make a faster one of
        if family.endswith("_video"):  # the manual's way from such a file to its image model
            image_model = {"sam2_video": "Sam2Model", "edgetam_video": "EdgeTamModel"}[family]
            model = getattr(transformers, image_model).from_pretrained(folder)
        return Network(folder, model.eval(), processor)

    return make


def photo(height: int, width: int) -> NDArray[np.uint8]:
    return np.random.default_rng(height).integers(0, 256, (height, width, 3), dtype=np.uint8)


def boxes_in(height: int, width: int) -> NDArray[np.float64]:
    """Boxes with fractions, on the borders, of the whole image, partly outside it, narrower than a pixel."""
    shares = [
        [0.21, 0.13, 0.55, 0.71],
        [0, 0, 0.4, 0.3],
        [0.61, 0.52, 1, 1],
        [0, 0, 1, 1],
        [-0.1, 0.3, 0.3, 1.2],
        [0.5, 0.2, 0.503, 0.9],
    ]
    return np.array(shares) * [width, height, width, height]


def no_labels(boxes: NDArray[np.float64]) -> NDArray[np.int32]:
    return np.zeros(len(boxes), dtype=np.int32)


@pytest.mark.slow
@pytest.mark.parametrize("family", FAMILIES)
def test_masks_match_transformers(network: Any, family: str) -> None:
    small = network(family)
    teacher = SamTeacher(small.folder)
    for size in [(23, 40), (150, 97), (64, 64)]:  # the networks look at 64 or 56 pixels
        image, boxes = photo(*size), boxes_in(*size)
        expected, ious = small.masks(image, boxes)
        assert np.ptp(expected, axis=0).max() > 0.1  # boxes differ by far more than the tolerance below
        found = teacher(image, boxes, no_labels(boxes))
        for mask, box, logits, iou in zip(found, boxes, expected, ious, strict=True):
            assert mask.logits.dtype == np.float32
            assert mask.score == pytest.approx(np.clip(iou, 0, 1), abs=1e-6)
            for margin in (0, 0.5):
                region = pixel_region(box, *size, margin)
                inside = logits[region.top : region.bottom, region.left : region.right]
                np.testing.assert_allclose(mask.resample(region), inside, rtol=0, atol=1e-5)


@pytest.mark.slow
def test_the_window_is_the_box_with_its_margin(network: Any) -> None:
    teacher = SamTeacher(network("sam2").folder, margin=0.25)
    boxes = np.array([[40.0, 20, 80, 60]])
    (mask,) = teacher(photo(100, 200), boxes, no_labels(boxes))
    assert mask.window == Region(30, 10, 90, 70)
    assert mask.logits.shape == (60, 60)
    assert mask.logits.base is None  # no view of the whole image's map


@pytest.mark.slow
def test_many_boxes_take_one_pass_of_the_encoder(network: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    image, boxes = photo(60, 90), boxes_in(60, 90)
    teacher = SamTeacher(network("sam").folder)
    together = teacher(image, boxes, no_labels(boxes))
    encoded, decoded = [], []
    teacher._model.vision_encoder.register_forward_hook(lambda *_: encoded.append(1))
    teacher._model.mask_decoder.register_forward_hook(lambda *_: decoded.append(1))
    monkeypatch.setattr(sam, "_CHUNK", 4)
    for mask, same in zip(teacher(image, boxes, no_labels(boxes)), together, strict=True):
        np.testing.assert_allclose(mask.logits, same.logits, rtol=0, atol=1e-5)
    assert (len(encoded), len(decoded)) == (1, 2)
    assert teacher(image, boxes[:0], no_labels(boxes[:0])) == []
    assert (len(encoded), len(decoded)) == (1, 2)


@pytest.mark.slow
@pytest.mark.parametrize("family", FAMILIES)
def test_threads_share_passes_of_the_encoder(network: Any, family: str) -> None:
    """Images of different sizes and numbers of boxes, the fourth of which cannot be predicted."""
    images = [photo(40 + i, 70 - i) for i in range(6)]
    boxes = [boxes_in(*image.shape[:2])[: 1 + i] for i, image in enumerate(images)]
    prompts = [SoftMask(np.full((2, 2), 4, np.float32), (5, 5, 30, 30))]
    teacher = SamTeacher(network(family).folder, prompter=Copied(prompts), batch=4)
    expected = [teacher(image, own, no_labels(own)) for image, own in zip(images, boxes, strict=True)]
    passes, predict = [], teacher._predict._function

    def predict_batch(items: list[Any]) -> list[Any]:
        if len(passes) == 0:
            arrived.wait(10)  # by then all others wait
        passes.append(len(items))
        if any(item.boxes.shape[1] == 4 for item in items):
            raise RuntimeError("broken")
        return predict(items)

    teacher._predict._function, arrived = predict_batch, Event()
    with ThreadPoolExecutor(len(images)) as pool:
        found = [
            pool.submit(teacher, image, own, no_labels(own)) for image, own in zip(images, boxes, strict=True)
        ]
        while len(teacher._predict._waiting) < len(images) - 1:
            sleep(0.01)
        arrived.set()
    assert passes[0] == 1 and max(passes) == 4 and sum(passes) >= 6
    for index, (future, masks) in enumerate(zip(found, expected, strict=True)):
        if index == 3:
            assert isinstance(future.exception(), RuntimeError)
            continue
        for mask, same in zip(future.result(), masks, strict=True):
            assert mask.window == same.window and mask.score == pytest.approx(same.score, abs=1e-6)
            np.testing.assert_allclose(mask.logits, same.logits, rtol=0, atol=1e-5)


@pytest.mark.slow
def test_batches_label_a_dataset_like_single_images(network: Any, tmp_path: Path) -> None:
    """In the order of the images, and but for one that cannot be read, which costs only itself."""
    folder, scenes = network("sam2").folder, boxel.data.example_scenes(9).without_masks()
    boxel.write(scenes, tmp_path / "boxes.json")
    shutil.copytree(scenes.root, tmp_path / "images")
    data = boxel.read(tmp_path / "boxes.json", images=tmp_path / "images")
    data.image_path(4).write_bytes(b"not an image")
    alone = label_data(data, teacher=SamTeacher(folder), workers=1)
    teacher = SamTeacher(folder, batch=4)
    together = label_data(data, teacher=teacher, workers=6, out=tmp_path / "masks.json")
    assert len(together.failures) == len(alone.failures) == 1
    assert (together.made == alone.made).all()
    for row in np.flatnonzero(alone.made):
        mask, same = together.data.mask(row), alone.data.mask(row)
        assert (mask != same).mean() < 1e-3
    again = label_data(data, teacher=teacher, workers=6, out=tmp_path / "masks.json")
    assert (again.labeled, again.reused) == (0, 8)


class Drawn:
    """A teacher of given soft masks."""

    name = "drawn"

    def __init__(self, soft: list[SoftMask], identity: str = "") -> None:
        self.soft, self.identity = soft, identity

    def __call__(self, image: NDArray[np.uint8], boxes: NDArray[np.float64], labels: Any) -> list[SoftMask]:
        return self.soft


class Copied(Drawn):
    """A teacher of the same soft mask for all boxes."""

    def __call__(self, image: NDArray[np.uint8], boxes: NDArray[np.float64], labels: Any) -> list[SoftMask]:
        return self.soft * len(boxes)


@pytest.mark.slow
@pytest.mark.parametrize("family", FAMILIES)
def test_masks_as_prompts_match_transformers(
    network: Any, family: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An image of 32 x 64 pixels and prompts of 16 x 16 cells, which cover the padding of SAM and SAM-HQ too."""
    small, image = network(family), photo(32, 64)
    boxes = np.array([[8.0, 4, 40, 28], [0, 0, 64, 32], [31, 9, 50, 21.5]])
    tall = 4 if family in ("sam", "sam_hq") else 2  # rows of pixels per cell
    rng, prompts, soft = np.random.default_rng(0), np.full((3, 16, 16), -10, np.float32), []
    for prompt, (left, top, right, bottom) in zip(
        prompts, [(2, 1, 10, 7), (0, 0, 16, 8), (7, 2, 8, 3)], strict=True
    ):
        logits = rng.normal(0, 5, (bottom - top, right - left)).astype(np.float32)
        logits[0, 0] = np.nan
        prompt[top:bottom, left:right] = np.nan_to_num(logits)
        soft.append(SoftMask(logits, (4 * left, tall * top, 4 * right, tall * bottom)))
    expected, ious = small.masks(image, boxes, prompts)
    plain, _ = small.masks(image, boxes)
    assert np.abs(expected - plain).max() > 0.05  # far more than the tolerance below
    monkeypatch.setattr(sam, "_CHUNK", 2)
    found = SamTeacher(small.folder, prompter=Drawn(soft))(image, boxes, no_labels(boxes))
    for mask, box, logits, iou in zip(found, boxes, expected, ious, strict=True):
        assert mask.score == pytest.approx(np.clip(iou, 0, 1), abs=1e-6)
        region = pixel_region(box, 32, 64)
        np.testing.assert_allclose(mask.resample(region), logits[region.slices], rtol=0, atol=1e-5)


@pytest.mark.slow
def test_the_bundled_network_prompts_by_name(
    network: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, data = network("sam2").folder, boxel.data.example_scenes(2).without_masks()
    monkeypatch.chdir(tmp_path)
    boxel.write(data, "boxes.json")
    words = ["--images", str(data.root), "--teacher", f"sam-refine:{folder}", "--device", "cpu"]
    assert main(["label", "boxes.json", *words]) == 0
    summary, *_, follow = capsys.readouterr().out.splitlines()
    assert "typically 0.07 off" in summary and follow.startswith("next: boxel next masks.json")
    masks = boxel.read("masks.json", images=data.root)
    made = masks.has_mask
    assert set(masks.source[made]) == {f"sam-refine:{folder}"} and np.isfinite(masks.quality[made]).all()
    own = data.instances_in(0)
    image, boxes = read_image(data.image_path(0)), data.boxes[own]
    refining = make_teacher(f"sam-refine:{folder}", device="cpu")
    by_hand = SamTeacher(folder, margin=0.0, prompter=make_teacher("boxcaseg", device="cpu"))
    for mask, same in zip(*(t(image, boxes, no_labels(boxes)) for t in (refining, by_hand)), strict=True):
        np.testing.assert_array_equal(mask.logits, same.logits)
    assert refining.identity == by_hand.identity != SamTeacher(folder).identity
    others = {SamTeacher(folder, prompter=Drawn([], identity)).identity for identity in "ab"}
    assert len(others) == 2


@pytest.mark.slow
def test_threads_get_the_same_masks(network: Any) -> None:
    images = [photo(40 + i, 70 - i) for i in range(8)]
    teacher = SamTeacher(network("sam2").folder)

    def predict_masks(image: NDArray[np.uint8]) -> list[NDArray[np.float32]]:
        boxes = boxes_in(*image.shape[:2])
        return [mask.logits for mask in teacher(image, boxes, no_labels(boxes))]

    with ThreadPoolExecutor(4) as pool:
        for mine, alone in zip(pool.map(predict_masks, images), map(predict_masks, images), strict=True):
            for mask, same in zip(mine, alone, strict=True):
                np.testing.assert_array_equal(mask, same)


def test_an_image_with_three_rows_is_not_transposed(network: Any) -> None:
    small, image, boxes = network("sam2"), photo(3, 30), np.array([[2.0, 0, 20, 3]])
    ((logits,), _) = small.masks(image, boxes)
    (mask,) = SamTeacher(small.folder)(image, boxes, no_labels(boxes))
    np.testing.assert_allclose(mask.resample(Region(2, 0, 20, 3)), logits[:, 2:20], rtol=0, atol=1e-5)


@pytest.mark.slow
def test_name_and_identity(network: Any, tmp_path: Path) -> None:
    folder = network("sam2").folder
    teacher = SamTeacher(folder)
    assert teacher.name == f"sam:{folder}"
    other = copied(folder, tmp_path / "other")
    assert SamTeacher(other).identity == teacher.identity
    change(other, lambda weights: weights["mask_decoder.iou_token.weight"].add_(1))
    assert SamTeacher(other).identity != teacher.identity


def copied(folder: Path, to: Path) -> Path:
    to.mkdir()
    for file in folder.iterdir():
        (to / file.name).write_bytes(file.read_bytes())
    return to


def change(folder: Path, edit: Callable[[dict[str, torch.Tensor]], object]) -> None:
    weights = load_file(folder / "model.safetensors")
    edit(weights)
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


def test_without_transformers_the_error_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(BoxelError, match=r"pip install 'boxel\[sam\]'"):
        SamTeacher("anything")


def test_folder_without_config_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(BoxelError, match=f"{tmp_path}: not readable as SAM"):
        SamTeacher(tmp_path)


@pytest.mark.parametrize("kind", ["vit", "sam3", "nonsense"])
def test_other_models_are_refused_by_their_type(tmp_path: Path, kind: str) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"model_type": kind}))
    with pytest.raises(BoxelError, match=kind):
        SamTeacher(tmp_path)


@pytest.mark.parametrize("file", ["model.safetensors", "preprocessor"])
def test_folder_without_weights_or_processor_is_refused(network: Any, tmp_path: Path, file: str) -> None:
    folder = copied(network("sam2").folder, tmp_path / "part")
    for path in folder.glob("*processor*" if file == "preprocessor" else file):
        path.unlink()
    with pytest.raises(BoxelError, match="part: not readable as SAM"):
        SamTeacher(folder)


def test_pickled_weights_are_not_read(network: Any, tmp_path: Path) -> None:
    folder = copied(network("sam2").folder, tmp_path / "pickled")
    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    with pytest.raises(BoxelError, match="pickled: not readable as SAM"):
        SamTeacher(folder)


@pytest.mark.slow
def test_weights_that_lack_a_tensor_are_refused(network: Any, tmp_path: Path) -> None:
    folder = copied(network("sam2").folder, tmp_path / "holes")
    change(folder, lambda weights: weights.pop("mask_decoder.iou_token.weight"))
    with pytest.raises(
        BoxelError, match=r"holes: the weights lack 1 tensors of Sam2Model, e\.g\. mask_decoder\.iou_token"
    ):
        SamTeacher(folder)


def test_weights_of_another_shape_are_refused(network: Any, tmp_path: Path) -> None:
    folder = copied(network("sam2").folder, tmp_path / "other")
    change(
        folder, lambda weights: weights.update({"mask_decoder.iou_token.weight": torch.zeros(1, 2 * WIDTH)})
    )
    with pytest.raises(BoxelError, match="other: not readable as SAM"):
        SamTeacher(folder)
