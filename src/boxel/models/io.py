"""Model folders: `config.yaml`, `model.safetensors`, `categories.json` and `metrics.json`. Nothing is unpickled."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import msgspec
import yaml

from boxel.crf.config import CRFConfig
from boxel.data.annotations import Category
from boxel.data.formats.builder import read_utf8
from boxel.methods import get_method, resolve
from boxel.models.exported.file import is_exported
from boxel.models.exported.loading import load_exported
from boxel.models.pretrained import BUNDLED, model_folder
from boxel.models.thresholds import SCORE_THRESHOLDS, read_thresholds
from boxel.utils.config import parse_config
from boxel.utils.device import resolve_device
from boxel.utils.errors import BoxelError, check_path, naming_extra, nearest, one_line
from boxel.utils.files import atomic_path, write_text
from boxel.utils.hub import NEEDED, download, parse_hub_id
from boxel.utils.safe_yaml import parse_yaml

if TYPE_CHECKING:
    from torch import Tensor, nn

    from boxel.models.boxcaseg import BoxCaseg
    from boxel.models.detector import Detector
    from boxel.models.exported import ExportedBoxToMask, ExportedDetector, ExportedSegmenter
    from boxel.models.semantic import Segmenter

Model: TypeAlias = "Detector | BoxCaseg | Segmenter"
"""A model: an instance segmenter, a class-agnostic one of given boxes, or a semantic one."""

AnyModel: TypeAlias = "Model | ExportedDetector | ExportedBoxToMask | ExportedSegmenter"
"""A model, or one as a file of `boxel export`."""

CRF_FILE = "crf.yaml"
"""The settings of a segmenter's CRF, beside its config.yaml."""


def build(method: str, num_classes: int, config: Mapping[str, object]) -> Model:
    """Build a new model.

    Args:
        method: `boxinst`, `mask-rcnn`, `boxcaseg`, `fcrn`, `fcrn-instances` or `boxsup`.
        num_classes: K, including the background for `fcrn` and `boxsup` only; unused by `boxcaseg`.
        config: Settings of the model as plain data; those left out keep their defaults.

    Raises:
        BoxelError: The method or a setting is unknown.

    Examples:
        >>> model = build("boxinst", 3, {"backbone": "resnet10t", "weights": "none"})
        >>> model.num_classes
        3
    """
    parts = get_method(method)
    settings = parse_config(resolve(parts.config), config, "the model's configuration")
    model = resolve(parts.model)
    return model(settings) if parts.kind == "box_to_mask" else model(num_classes, settings)


def save(
    model: nn.Module, folder: Path, config: Mapping[str, object], categories: Sequence[Category]
) -> None:
    """Write a model folder.

    Args:
        model: Its weights are written.
        folder: Created if needed.
        config: `method`, `model` and anything else worth keeping.
        categories: In the order of the labels.

    Examples:
        >>> import tempfile
        >>> config = {"method": "boxcaseg", "model": {"backbone": "resnet10t", "weights": "none"}}
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     save(build("boxcaseg", 1, config["model"]), Path(folder), config, [Category(1, "object")])
        ...     load(folder).categories[0].name
        'object'
    """
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    save_config(folder, config, categories)
    weights = {name: tensor.detach().cpu().contiguous() for name, tensor in model.state_dict().items()}
    path = folder / "model.safetensors"
    with atomic_path(path) as file:
        try:
            save_file(weights, file)
        except SafetensorError as error:  # of the disk
            reason = one_line(error)
            raise BoxelError(
                f"{path}: cannot be written ({reason}); free some space, or check the folder."
            ) from error


def save_config(folder: Path, config: Mapping[str, object], categories: Sequence[Category]) -> None:
    """Write everything of a model folder but the weights; arguments as for :func:`save`."""
    write_text(folder / "config.yaml", yaml.safe_dump(dict(config), sort_keys=False))
    rows = [
        {name: getattr(category, name) for name in ("id", "name", "supercategory")} for category in categories
    ]
    write_text(folder / "categories.json", json.dumps(rows, indent=1))


def load(source: str | Path) -> AnyModel:
    """Load a trained model.

    Args:
        source: The folder of a finished run, the name of a bundled model
            (:data:`~boxel.models.pretrained.BUNDLED`), an ONNX file of `boxel export`, which needs no PyTorch, or a
            model on the Hugging Face Hub: `owner/name`, or `owner/name@revision` for a branch, a tag or a commit. Only
            files that are read are downloaded, and none is executed; a private model needs the token in the variable
            `HF_TOKEN` or of `hf auth login`.

    Returns:
        The model in eval mode, with the `categories` of its dataset and the `settings` of its run: the folder's
        config.yaml, and under `crf` and `score_thresholds` its crf.yaml and score_thresholds.json if it has them. Of an
        ONNX file a model that predicts alike, see :mod:`boxel.models.exported`.

    Raises:
        BoxelError: The folder does not exist or is incomplete, the weights do not fit, or the file is not boxel's.

    Examples:
        >>> type(load("boxcaseg")).__name__
        'BoxCaseg'
    """
    return load_exported(source) if is_exported(source) else load_folder(source)


def load_on(source: str | Path, device: str) -> AnyModel:
    """Load a model on a device, `auto` for CUDA if available; an ONNX file runs on the CPU."""
    if is_exported(source):
        return load_exported(source).to("cpu" if device == "auto" else device)
    return load_folder(source).to(resolve_device(device))


@naming_extra("boxel.load")
def load_folder(source: str | Path) -> Model:
    """Load a trained model with PyTorch; arguments, result and errors as of :func:`load`, without ONNX files."""
    folder = find_folder(source)
    for name in NEEDED:
        if not (folder / name).is_file():
            raise BoxelError(
                f"{folder} is not a model folder: it has no {name}; give the folder of a finished run."
            )
    settings, categories = read_config_file(folder), read_categories(folder)
    try:
        model = build(settings["method"], len(categories), without_weights(settings["model"]))
    except (RuntimeError, TypeError, ValueError, ArithmeticError, MemoryError) as error:  # of absurd sizes
        raise _damaged(folder / "config.yaml", error) from error
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        weights = load_file(folder / "model.safetensors")
    except (OSError, ValueError, SafetensorError) as error:
        raise _damaged(folder / "model.safetensors", error) from error
    try:
        model.load_state_dict(weights)
    except RuntimeError as error:
        raise BoxelError(
            f"{folder}/model.safetensors does not fit its config.yaml ({one_line(error, 300)})."
        ) from error
    broken = find_not_finite(weights)
    if broken is not None:
        raise _damaged(folder / "model.safetensors", f"{broken} has values that are not finite")
    model.categories = categories
    beside = {"crf": read_crf(folder), SCORE_THRESHOLDS: read_thresholds(folder)}
    model.settings = settings | {name: value for name, value in beside.items() if value}
    return model.eval()


def find_not_finite(weights: Mapping[str, Tensor]) -> str | None:
    """Return the name of the first tensor with a value that is not finite; None if there is none."""
    return next((name for name, tensor in weights.items() if not tensor.isfinite().all()), None)


@naming_extra("boxel.load")
def find_folder(source: str | Path) -> Path:
    """Return the folder of a model, the newest if it is on the hub; argument and errors as of :func:`load`."""
    check_path("source", source)
    folder = model_folder(source) if parse_hub_id(source) is None else download(source)
    if folder.is_dir():
        return folder
    if folder.is_file():
        what = (
            "an exported model, and a run folder"
            if folder.suffix.lower() == ".onnx"
            else "a file, and a model"
        )
        raise BoxelError(f"{source} is {what} is needed here; name the folder of a training.")
    parent = Path(source).parent
    close = nearest(str(source), [*(str(path) for path in parent.glob("*/")), *BUNDLED])
    raise BoxelError(f"{source}: there is no such model folder; check the path.{close}")


def write_crf(crf: CRFConfig, folder: Path) -> None:
    """Write the settings of a model's CRF to its folder."""
    write_text(folder / CRF_FILE, yaml.safe_dump(asdict(crf), sort_keys=False))


def read_crf(folder: Path) -> dict[str, Any]:
    """Return the settings of the CRF in a model folder; empty if there is none."""
    file = folder / CRF_FILE
    if not file.is_file():
        return {}
    try:
        values = parse_yaml(read_utf8(file))
        if not isinstance(values, dict):
            raise ValueError(f"it holds a {type(values).__name__} instead of settings")
        return asdict(parse_config(CRFConfig, values, CRF_FILE))
    except (BoxelError, ValueError, TypeError, yaml.YAMLError) as error:
        raise BoxelError(
            f"{file} cannot be read as settings of a CRF ({one_line(error, 300)}); remove it, and run `boxel tune-crf`."
        ) from error


def without_weights(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return a model's settings with random initial weights, since all weights come from a file."""
    inner = {name: without_weights(value) for name, value in config.items() if isinstance(value, Mapping)}
    return {**config, **inner} | ({"weights": "none"} if "weights" in config else {})


def read_categories(folder: Path) -> tuple[Category, ...]:
    """Return the categories of a model folder, in the order of the labels.

    Raises:
        BoxelError: The file is damaged.
    """
    file = folder / "categories.json"
    try:
        return msgspec.json.decode(read_utf8(file), type=tuple[Category, ...])
    except (msgspec.MsgspecError, RecursionError) as error:
        raise _damaged(file, error) from error


def read_config_file(folder: Path) -> dict[str, Any]:
    """Return the content of the config.yaml of a model folder, which has at least `method` and `model`.

    Raises:
        BoxelError: The file is damaged.
    """
    file = folder / "config.yaml"
    try:
        config = parse_yaml(read_utf8(file))
    except (ValueError, yaml.YAMLError) as error:
        raise _damaged(file, error) from error
    if not isinstance(config, dict) or not isinstance(config.get("model"), dict):
        raise _damaged(file, "it does not state the method and the model")
    if not isinstance(config.get("method"), str):
        raise _damaged(file, "it does not state the method")
    return config


def _damaged(file: Path, reason: object) -> BoxelError:
    return BoxelError(
        f"{file}: is damaged ({one_line(reason, 200)}); restore it from a copy, or train again."
    )
