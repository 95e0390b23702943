"""A trained model is a folder: config.yaml, model.safetensors, categories.json, metrics.json. Nothing is unpickled."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import yaml
from jsonargparse import ArgumentParser
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import nn

from boxel.crf import CRFConfig
from boxel.data.annotations import Category
from boxel.methods import get_method, resolve
from boxel.models.pretrained import folder_of
from boxel.utils.errors import BoxelError, first_line

if TYPE_CHECKING:
    from boxel.models.boxcaseg import BoxCaseg
    from boxel.models.detector import Detector
    from boxel.models.semantic import Segmenter

Model: TypeAlias = "Detector | BoxCaseg | Segmenter"
"""A model: an instance segmenter, a class-agnostic one of given boxes, or a semantic one."""

CRF_FILE = "crf.yaml"
"""What a segmenter's CRF is told in, beside its config.yaml."""


def build(method: str, num_classes: int, config: Mapping[str, Any]) -> Model:
    """A new model.

    Args:
        method: `boxinst`, `mask_rcnn`, `boxcaseg`, `fcrn`, `fcrn-instances` or `boxsup`.
        num_classes: K, with no class for the background but for `fcrn` and `boxsup`; BoxCaseg knows none.
        config: fields of the method's configuration as plain data; what is missing has its default.

    Raises:
        BoxelError: an unknown method or key.
    """
    parts = get_method(method)
    kind, model = resolve(parts.config), resolve(parts.model)
    parser = ArgumentParser(exit_on_error=False)
    parser.add_class_arguments(kind, "model")
    try:
        settings = parser.instantiate(parser.parse_object({"model": dict(config)})).model
    except Exception as error:
        raise BoxelError(f"the model's configuration can't be used: {error}") from error
    return model(settings) if parts.kind == "box_to_mask" else model(num_classes, settings)


def save(model: nn.Module, folder: Path, config: Mapping[str, Any], categories: Sequence[Category]) -> None:
    """Write a model folder.

    Args:
        model: its weights are written.
        folder: made if needed.
        config: `method`, `model` and anything else worth keeping.
        categories: in the order of the labels.
    """
    describe(folder, config, categories)
    weights = {name: tensor.detach().cpu().contiguous() for name, tensor in model.state_dict().items()}
    partial = folder / "model.safetensors.partial"
    save_file(weights, partial)
    partial.replace(folder / "model.safetensors")


def describe(folder: Path, config: Mapping[str, Any], categories: Sequence[Category]) -> None:
    """Write all of a model folder but the weights; arguments as for :func:`save`."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.yaml").write_text(yaml.safe_dump(dict(config), sort_keys=False))
    (folder / "categories.json").write_text(
        json.dumps([asdict(category) for category in categories], indent=1)
    )


def load(source: str | Path) -> Model:
    """A trained model from its folder, from boxel itself, or from the Hugging Face hub by its id.

    Args:
        source: the `--out` folder of a finished run, a name in :data:`~boxel.models.pretrained.SHIPPED`, or
            `owner/name` on the hub.

    Returns:
        The model in eval mode, with `categories` (the data set's) and `settings` (the folder's config.yaml, and under
        `crf` its crf.yaml where there is one).

    Raises:
        BoxelError: the folder is not there or not whole, or the weights do not fit.
    """
    folder = folder_of(source)
    if not folder.is_dir():
        folder = _from_hub(str(source))
    for name in ("config.yaml", "categories.json", "model.safetensors"):
        if not (folder / name).is_file():
            raise BoxelError(
                f"{folder} is not a model folder: it has no {name}; name the --out folder of a finished run."
            )
    try:
        settings = yaml.safe_load((folder / "config.yaml").read_text())
        method, config = settings["method"], settings["model"]
        categories = read_categories(folder)
    except (OSError, ValueError, KeyError, TypeError, yaml.YAMLError) as error:
        raise BoxelError(f"{folder}: config.yaml or categories.json can't be read ({error!r}).") from error
    model = build(method, len(categories), without_weights(config))
    try:
        model.load_state_dict(load_file(folder / "model.safetensors"))
    except (OSError, RuntimeError, ValueError, SafetensorError) as error:
        reason = " ".join(str(error).split())[:300]
        raise BoxelError(f"{folder}/model.safetensors does not fit its config.yaml ({reason}).") from error
    model.categories = categories
    crf = read_crf(folder)
    model.settings = settings | ({"crf": crf} if crf else {})
    return model.eval()


def write_crf(crf: CRFConfig, folder: Path) -> None:
    """Keep the CRF of a model in its folder."""
    (folder / CRF_FILE).write_text(yaml.safe_dump(asdict(crf), sort_keys=False))


def read_crf(folder: Path) -> dict[str, Any]:
    """The fields of the CRF that is kept in a model folder; empty where none is.

    Raises:
        BoxelError: it makes no sense.
    """
    file = folder / CRF_FILE
    if not file.is_file():
        return {}
    try:
        return asdict(CRFConfig(**yaml.safe_load(file.read_text())))
    except (OSError, TypeError, ValueError, BoxelError, yaml.YAMLError) as error:
        reason = " ".join(str(error).split())[:300].rstrip(".")
        raise BoxelError(
            f"{file}: can't be read as settings of a CRF ({reason}); remove it, and let `boxel tune-crf` make another."
        ) from error


def without_weights(config: Mapping[str, Any]) -> dict[str, Any]:
    """A model's configuration whose networks start from nothing, since every weight comes from a file."""
    inner = {name: without_weights(value) for name, value in config.items() if isinstance(value, Mapping)}
    return {**config, **inner} | ({"weights": "none"} if "weights" in config else {})


def read_categories(folder: Path) -> tuple[Category, ...]:
    """The categories of a model folder, in the order of the labels."""
    return tuple(Category(**row) for row in json.loads((folder / "categories.json").read_text()))


def _from_hub(name: str) -> Path:
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(name, allow_patterns=["*.yaml", "*.json", "*.safetensors"]))
    except Exception as error:
        raise BoxelError(
            f"{name!r} is neither a folder here nor a model that the hub gives ({first_line(error)})."
        ) from error
