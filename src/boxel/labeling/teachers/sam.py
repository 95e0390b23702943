"""Segment Anything as a teacher: the SAM family of `transformers`, prompted with the boxes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from boxel.labeling.teachers.base import CERTAIN_LOGIT, SoftMask, Teacher
from boxel.labeling.teachers.batches import CallBatcher
from boxel.labeling.teachers.detector import digest_model
from boxel.masks.boxes import pixel_region
from boxel.masks.crops import resample
from boxel.utils.errors import BoxelError, missing_extra, one_line

_SAM2 = ("Sam2Model", "Sam2Processor")
_SAM3 = ("Sam3TrackerModel", "Sam3TrackerProcessor")
_EDGETAM = ("EdgeTamModel", "Sam2Processor")
_CLASSES = {
    "sam": ("SamModel", "SamProcessor"),
    "sam_hq": ("SamHQModel", "SamHQProcessor"),
    "sam2": _SAM2,
    "sam2_video": _SAM2,  # the type of the authors' own checkpoints, which hold the image model too
    "edgetam": _EDGETAM,
    "edgetam_video": _EDGETAM,  # likewise
    "sam3_tracker": _SAM3,
    "sam3_video": _SAM3,
}
"""Model and processor of `transformers` by the model type of a config.json."""

_CHUNK = 32  # boxes per call of the decoder; each takes about 40 MB meanwhile


class _Prompts(NamedTuple):
    """An image as the network sees it, and what it is prompted with."""

    pixels: Tensor  # (1, 3, H, W), of the same size for all images
    boxes: Tensor  # (1, N, 4)
    masks: Tensor | None  # (N, 1, h, w) logits


class SamTeacher:
    """A Segment Anything model that is prompted with each box.

    An image goes through the encoder once and its boxes through the decoder together. On the pixels of a mask's
    window the logits are those of transformers' own processor, model and post-processing. The score is the IoU that
    the model predicts for its mask.

    Several threads may call it, but the network makes one pass at a time: it uses all cores by itself, and its encoder
    takes up to 1.5 GB per image.

    Args:
        source: A folder with config.json, model.safetensors and the processor's files, or `owner/name` on the
            Hugging Face hub.
        device: Where the network runs.
        margin: Margin of the soft mask around each box, as a share of its width and height.
        prompter: A teacher whose masks are prompts too, so that the model refines them. They are given as the logits
            that they are, like those that SAM itself predicted in a pass before; what lies outside of a mask's window
            is background, and where the teacher has no opinion the logit is 0.
        batch: Maximum number of images per pass of the encoder, those of threads that call while it is busy. It pays on
            a GPU; masks may differ in the last digits.

    References:
        Kirillov et al., "Segment Anything", ICCV 2023; Ke et al., "Segment Anything in High Quality", NeurIPS 2023;
        Ravi et al., "SAM 2", 2024; Zhou et al., "EdgeTAM", CVPR 2025; Carion et al., "SAM 3", 2025.
    """

    def __init__(
        self,
        source: str | Path,
        device: str | torch.device = "cpu",
        margin: float = 0.5,
        prompter: Teacher | None = None,
        batch: int = 1,
    ) -> None:
        model, self._processor = _load(str(source))
        self.name = f"sam-refine:{source}" if prompter else f"sam:{source}"
        about = [] if prompter is None else [prompter.name, getattr(prompter, "identity", "")]
        self.identity = digest_model(model, self._processor.image_processor.to_dict(), *about)
        self._model = model.to(device).eval()
        self._margin, self._prompter = margin, prompter
        self._predict = CallBatcher(self._predict_batch, batch)

    @torch.inference_mode()
    def __call__(
        self, image: NDArray[np.uint8], boxes: NDArray[np.float64], labels: NDArray[np.int32]
    ) -> list[SoftMask]:
        """Predict one soft mask per box, on the pixels of the box and its margin; see `Teacher`."""
        if len(boxes) == 0:
            return []
        # A PIL image, since transformers guesses the channel axis of arrays.
        inputs = self._processor(Image.fromarray(image), input_boxes=[boxes.tolist()], return_tensors="pt")
        prompts = None
        if self._prompter is not None:
            prompts = self._draw_prompts(self._prompter(image, boxes, labels), image.shape[:2], inputs)
        masks, ious = self._predict(_Prompts(inputs["pixel_values"], inputs["input_boxes"], prompts))
        height, width = image.shape[:2]
        sizes = {key: inputs[key] for key in ("original_sizes", "reshaped_input_sizes") if key in inputs}
        soft = []
        for box, mask, iou in zip(boxes, masks, ious.tolist(), strict=True):
            # One at a time: each becomes a map of the size of the whole image.
            full = self._processor.post_process_masks([mask[None]], **sizes, binarize=False)[0][0, 0]
            region = pixel_region(box, height, width, self._margin)
            part = full[region.slices]
            soft.append(SoftMask(np.array(part.cpu()), region, min(max(0.0, iou), 1.0)))
        return soft

    def _draw_prompts(self, soft_masks: list[SoftMask], size: tuple[int, ...], inputs: Any) -> Tensor:
        """Return masks of an image of a size (height, width) as (N, 1, h, w) logits on the grid of mask prompts."""
        grid = 4 * np.array(self._model.prompt_encoder.image_embedding_size)
        padded = inputs["pixel_values"].shape[-2:]
        covered = np.array(inputs.get("reshaped_input_sizes", [padded])[0])  # by the image
        scale = grid * covered / padded / size  # cells per pixel, down and across
        prompts = np.full((len(soft_masks), 1, *grid), -CERTAIN_LOGIT, dtype=np.float32)
        for soft, prompt in zip(soft_masks, prompts[:, 0], strict=True):
            window = np.array(soft.window) * np.tile(scale[::-1], 2)
            region = pixel_region(window, *grid.tolist())
            prompt[region.slices] = np.nan_to_num(resample(soft.logits, window, region))
        return torch.from_numpy(prompts)

    def _predict_batch(self, images: list[_Prompts]) -> list[tuple[Tensor, Tensor]]:
        """Return (N, 1, h, w) logits of the boxes of each image and (N,) the IoU that is predicted for them."""
        pixels = torch.cat([image.pixels for image in images]).to(self._model.device)
        embeddings = self._model.get_image_embeddings(pixels)
        # SAM-HQ's decoder sees what is between the layers of its encoder too.
        parts = embeddings if isinstance(embeddings, tuple) else (embeddings,)
        encoded = dict(zip(("image_embeddings", "intermediate_embeddings"), parts, strict=False))
        return [self._decode(_select(encoded, row), image) for row, image in enumerate(images)]

    def _decode(self, encoded: dict[str, Any], image: _Prompts) -> tuple[Tensor, Tensor]:
        """Predict the masks of the boxes of one image, whose embeddings are batches of 1."""
        device = self._model.device
        # SAM's prompts are in double precision, which MPS lacks.
        boxes = image.boxes.float() if device.type == "mps" else image.boxes
        logits, ious = [], []
        for start in range(0, boxes.shape[1], _CHUNK):
            given = {"input_boxes": boxes[:, start : start + _CHUNK].to(device)}
            if image.masks is not None:
                # One mask prompt per image is possible: each box gets a copy of the image.
                count = given["input_boxes"].shape[1]
                given["input_boxes"] = given["input_boxes"].transpose(0, 1)  # (n, 1, 4)
                given["input_masks"] = image.masks[start : start + _CHUNK].to(device)
                given |= _select(encoded, 0, count)
            # Three masks per prompt are meant for an ambiguous click; for a box the authors take the single one.
            output = self._model(**encoded | given, multimask_output=False)
            logits.append(output.pred_masks.flatten(0, 1))
            ious.append(output.iou_scores.flatten())
        return torch.cat(logits), torch.cat(ious)


def _select(encoded: Any, row: int, count: int = 1) -> Any:
    """Select one image of a batch of embeddings, tensors in lists or by name, repeated without a copy."""
    if isinstance(encoded, Tensor):
        return encoded[row].expand(count, *encoded.shape[1:])
    if isinstance(encoded, dict):
        return {name: _select(part, row, count) for name, part in encoded.items()}
    return [_select(part, row, count) for part in encoded]


def _load(source: str) -> tuple[Any, Any]:
    """Load model and processor of a folder or of the hub, from safetensors only and without remote code."""
    try:
        import transformers
    except ImportError as error:
        raise missing_extra(f"sam:{source}", error, "sam") from error
    with _readable(source):
        kind = transformers.AutoConfig.from_pretrained(source, trust_remote_code=False).model_type
    if kind not in _CLASSES:
        raise BoxelError(
            f"{source}: a model of type {kind!r} predicts no masks of boxes; give one of {', '.join(_CLASSES)}."
        )
    with _readable(source):
        network, processing = (getattr(transformers, name) for name in _CLASSES[kind])
        processor = processing.from_pretrained(source)
        model, report = network.from_pretrained(
            source, use_safetensors=True, dtype=torch.float32, output_loading_info=True
        )
    # transformers initializes missing weights at random, and only warns.
    if report["missing_keys"]:
        lacking = sorted(report["missing_keys"])
        raise BoxelError(
            f"{source}: the weights lack {len(lacking)} tensors of {network.__name__}, e.g. {lacking[0]}; "
            "download or save the model again."
        )
    return model, processor


@contextmanager
def _readable(source: str) -> Iterator[None]:
    try:
        yield
    except Exception as error:  # folders and the hub raise many types
        raise BoxelError(
            f"{source}: not readable as SAM, SAM-HQ, SAM 2, EdgeTAM or SAM 3 ({one_line(error, 200)}); give a folder "
            "with config.json, model.safetensors and preprocessor_config.json, or the id of such a model on the hub."
        ) from error
