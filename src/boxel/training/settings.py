"""Settle what a run is to do, from the arguments of :func:`boxel.train`."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

from boxel.methods import METHODS, Method, get_method
from boxel.training.config import ALIASES, SEGMENTS, TrainConfig
from boxel.training.recipe import read_config, read_init
from boxel.training.small import NETWORK
from boxel.utils.errors import BoxelError, MissingExtraError, UsageError, one_line

INPUT_SIZE = ("augment", "augment.short_sides", "augment.max_size")  # `min_side` changes none that is given
LAST = Path("checkpoints", "last.ckpt")  # in the folder of a run


@dataclass(frozen=True)
class Run:
    """What is settled about a run before its data is read."""

    method: Method
    settings: Any  # of the method's subclass of `TrainConfig`
    out: Path
    inputs: Mapping[str, Any]  # what the method takes beside annotations, by name
    recipe: str | Path | Mapping[str, object] | None  # that the settings come from, if any
    init: str | Path | None  # a model to start from; a backbone of timm is among the settings

    @property
    def record(self) -> dict[str, Any]:
        """The method, all settings and what the run starts from, as the run folder keeps them."""
        start = {} if self.init is None else {"init": str(self.init)}
        return {"method": self.method.name, **start, **asdict(self.settings)}

    @property
    def segmenter(self) -> bool:
        """Whether the model gives each pixel a class."""
        return self.method.kind == "segmenter"


def resolve_run(
    method: str,
    config: TrainConfig | str | Path | Mapping[str, object] | None,
    init: str | Path | None,
    out: str | Path | None,
    settings: Mapping[str, Any],
    small: str | None = None,
) -> Run:
    """Settle what a run is to do; the arguments are those of :func:`boxel.train`, and its recipe without `config`."""
    parts = get_method(method)
    inputs, changes = _split_inputs(parts, settings)
    recipe = small if config is None else asdict(config) if isinstance(config, TrainConfig) else config
    values = recipe
    if init is None:
        init = None if any(name in changes for name in NETWORK) else read_init(recipe)
    else:
        from boxel.training.start_weights import is_backbone, read_start_settings

        if is_backbone(init):
            changes = {"model.backbone": str(init), "model.weights": "imagenet"} | changes
            if changes["model.backbone"] != str(init):
                raise UsageError(f"`init` {init} is a backbone, and so is `model.backbone`; leave one out.")
            init = None
        elif config is None:
            name, model = read_start_settings(init)
            other = get_method(name)
            if other.kind != parts.kind or (other is not parts and parts.kind == "detector"):
                model = {"backbone": model["backbone"]}  # all that their networks have in common
            # Of a recipe that nobody named, no setting of the network counts.
            values = {"base": small, "model": asdict(read_config(None, parts.name).model) | model}
    if any(name in changes for name in INPUT_SIZE):
        changes.setdefault("augment.min_side", None)
    resolved = read_config(values, parts.name, **changes)
    if resolved.label == SEGMENTS and parts.name != "boxsup":
        raise UsageError(
            f"{parts.name} has no candidate segments to choose among; name a teacher of `boxel label` with `label`."
        )
    _check_loggers(resolved.loggers)
    if "semantic" in inputs:
        from boxel.training.finetune import read_semantic_config

        resolved.model.semantic = read_semantic_config(inputs["semantic"])
    return Run(parts, resolved, Path("runs", parts.name) if out is None else Path(out), inputs, recipe, init)


def is_finished(out: Path) -> bool:
    """Return whether a folder holds the model of a finished run."""
    return os.path.exists(out / "model.safetensors")  # unlike that of a path, it is silent on a name too long


def check_unused(out: Path) -> None:
    """Raise a :class:`BoxelError` if a folder holds a run already."""
    if os.path.exists(out / LAST) or is_finished(out):
        raise BoxelError(f"{out} holds a run already; continue it with `resume`, or name another `out`.")


def _check_loggers(names: list[str]) -> None:
    """Raise a :class:`MissingExtraError` if the package of a logger, which has its name, is not installed."""
    for name in names:
        try:
            import_module(name)
        except ImportError as error:
            raise MissingExtraError(
                f"`loggers` has {name}, which is missing ({one_line(error)}); pip install {name}, or leave it out."
            ) from error


def _split_inputs(method: Method, settings: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Separate the further inputs of a method from its settings, whose short names become paths."""
    known = {extra.name for other in METHODS.values() for extra in other.inputs}
    inputs = {name: settings[name] for name in settings.keys() & known if settings[name] is not None}
    for name in inputs.keys() - {extra.name for extra in method.inputs}:
        raise UsageError(f"{method.name} does not use `{name}`; leave it out.")
    for extra in method.inputs:
        if extra.required and extra.name not in inputs:
            raise UsageError(f"{method.name} needs {extra.help}; name it with `{extra.name}`.")
    changes = {ALIASES.get(name, name): value for name, value in settings.items() if name not in known}
    return inputs, {name: str(value) if isinstance(value, Path) else value for name, value in changes.items()}
