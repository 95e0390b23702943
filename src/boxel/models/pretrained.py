"""The bundled models: model folders under names of their own."""

from __future__ import annotations

import json
import shlex
from hashlib import blake2b
from importlib.resources import files
from pathlib import Path

import yaml

from boxel.utils.hub import hub_folder
from boxel.utils.safe_yaml import parse_yaml

BUNDLED = ("boxcaseg", "boxcaseg-boxes", "boxinst")
"""`boxcaseg` has learned from boxes, salient images and some masks; `boxcaseg-boxes` has only seen the masks of the
salient images; `boxinst` finds objects of any class. Their cards are beside their weights."""

ONNX_FILE = "model.onnx"
"""The whole network beside its weights: onnxruntime runs it without PyTorch."""


def model_folder(source: str | Path) -> Path:
    """Return the folder of a model.

    Args:
        source: One of :data:`BUNDLED`, a path, or a model on the Hugging Face Hub, `owner/name` or
            `owner/name@revision`, which is downloaded; an existing folder of that name takes precedence.

    Raises:
        BoxelError: The model cannot be downloaded.

    Examples:
        >>> model_folder("boxcaseg").name
        'boxcaseg'
    """
    path = Path(source)
    if str(source) in BUNDLED and not path.is_dir():
        return Path(str(files("boxel"))) / "weights" / str(source)
    return hub_folder(source) or path


def read_method(source: str | Path) -> str | None:
    """Return the method of a model, given as to :func:`model_folder`; None if it is not one.

    Examples:
        >>> read_method("boxcaseg")
        'boxcaseg'
    """
    try:
        text = (model_folder(source) / "config.yaml").read_text(encoding="utf-8")
        return str(parse_yaml(text)["method"])
    except (OSError, ValueError, KeyError, TypeError, yaml.YAMLError):
        return None


def export_command(folder: Path) -> str:
    """Return the command that writes the ONNX file of a model folder.

    Examples:
        >>> export_command(Path("runs", "boxcaseg"))
        'boxel export runs/boxcaseg runs/boxcaseg/model.onnx'
    """
    return shlex.join(["boxel", "export", folder.as_posix(), (folder / ONNX_FILE).as_posix()])


def model_digests(folder: Path) -> dict[str, str]:
    """Compute digests of the weights and of the model's settings in a model folder, which decide its masks.

    Examples:
        >>> sorted(model_digests(model_folder("boxcaseg")))
        ['settings', 'weights']
    """
    settings = parse_yaml((folder / "config.yaml").read_text(encoding="utf-8")).get("model")
    content = {
        "weights": (folder / "model.safetensors").read_bytes(),
        "settings": json.dumps(settings, sort_keys=True, default=str).encode(),
    }
    return {name: blake2b(part, digest_size=8).hexdigest() for name, part in content.items()}
