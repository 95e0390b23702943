"""The folder of a run: start it, check that a run can resume in it, and finish it with the model."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from importlib import import_module
from pathlib import Path
from pickle import UnpicklingError
from typing import Any
from zipfile import is_zipfile

import torch
import yaml
from lightning.fabric import Fabric

from boxel.data.annotations import Category
from boxel.data.digest import count_masks, describe_source
from boxel.exporting.onnx import export_beside
from boxel.methods import resolve
from boxel.models import io as model_io
from boxel.models.thresholds import SCORE_THRESHOLDS, describe_thresholds, write_thresholds
from boxel.training.log import rank_zero_logger
from boxel.training.prepare import TrainingData
from boxel.training.settings import LAST, Run, is_finished
from boxel.utils.errors import BoxelError, one_line
from boxel.utils.files import write_text
from boxel.utils.provenance import describe_origin
from boxel.viz.plots import plot_curves

logger = rank_zero_logger(__name__)

BEST = Path("checkpoints", "best.ckpt")


def prepare_folder(run: Run, classes: Sequence[Category], resume: bool) -> Path | None:
    """Start a run folder and return None, or find the checkpoint to resume from.

    Raises:
        BoxelError: The folder holds a run that cannot be resumed with these settings, or is damaged.
    """
    out, record = run.out, run.record
    if not resume:
        (out / BEST).unlink(missing_ok=True)  # left by a run that was killed before its first checkpoint
        model_io.save_config(out, record, classes)
        return None
    config = out / "config.yaml"
    for needed, remedy in (
        (out / LAST, "start from scratch without `resume`"),
        (config, "start from scratch in another `out`"),
    ):
        if not needed.is_file():
            raise BoxelError(f"{out} has no {needed.relative_to(out).as_posix()} to resume from; {remedy}.")
    before, now = model_io.read_config_file(out), yaml.safe_load(yaml.safe_dump(record))
    changed = [name for name in now if name not in ("loggers", "init") and before.get(name) != now[name]]
    if [(c.id, c.name) for c in model_io.read_categories(out)] != [(c.id, c.name) for c in classes]:
        changed.append("categories")
    if changed:
        raise BoxelError(
            f"{config}: the run started with other settings ({', '.join(changed)}); resume with the same ones, or "
            "start a new run from its weights with `init`."
        )
    return out / LAST if is_finished(out) else _find_checkpoint(out)


def _find_checkpoint(out: Path) -> Path:
    """Return the last checkpoint of a run, or the best one, which is an earlier one, if that is damaged."""
    reason, best = _open_checkpoint(out / LAST)[1], out / BEST
    if not reason:
        return out / LAST
    state = _open_checkpoint(best)[0]
    if state is None:
        raise _damaged(out / LAST, reason)
    message = "%s: the checkpoint is damaged (%s), so the run resumes from step %d, that of %s"
    logger.warning(message, out / LAST, reason, state["global_step"], BEST.name)
    return best


_IN_CHECKPOINT = {
    "state_dict",
    "optimizer_states",
    "lr_schedulers",
    "loops",
    "callbacks",
    "global_step",
    "metrics",
}


def read_checkpoint(path: Path) -> dict[str, Any]:
    """Read a checkpoint, whose tensors stay in the file; nothing but tensors and plain values is accepted.

    Raises:
        BoxelError: It is damaged.
    """
    state, reason = _open_checkpoint(path)
    if state is None:
        raise _damaged(path, reason)
    return state


def _open_checkpoint(path: Path) -> tuple[dict[str, Any] | None, str]:
    """Read a checkpoint as :func:`read_checkpoint`; return None and the reason if it is damaged."""
    try:
        if not is_zipfile(path):  # of which torch speaks in terms of its own
            return None, "it is cut, or not a checkpoint"
        state = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except UnpicklingError:  # whose text is on how to read it nevertheless
        return None, "it holds more than tensors and plain values, or is cut"
    except Exception as error:  # torch raises as many types as there are ways to be damaged
        return None, one_line(error)
    missing = _IN_CHECKPOINT - state.keys() if isinstance(state, dict) else _IN_CHECKPOINT
    if missing:
        return None, f"it has no {', '.join(sorted(missing))}"
    broken = model_io.find_not_finite(state["state_dict"])
    return (state, "") if broken is None else (None, f"{broken} has values that are not finite")


def _damaged(path: Path, reason: str) -> BoxelError:
    remedy = "restore it from a copy, or start from scratch in another `out`"
    return BoxelError(f"{path}: the checkpoint is damaged ({reason}); {remedy}.")


def count_steps(checkpoint: Path | None) -> int:
    """Return the number of optimizer steps done at a checkpoint; 0 for None."""
    return 0 if checkpoint is None else read_checkpoint(checkpoint)["global_step"]


def check_weights(checkpoint: Path | None, model: Mapping[str, Any]) -> None:
    """Raise an error if the weights in a checkpoint are not those of a model, given as its state."""
    if checkpoint is None:
        return
    weights = read_checkpoint(checkpoint)["state_dict"]
    found = {name: tuple(value.shape) for name, value in weights.items()}
    wanted = {name: tuple(value.shape) for name, value in model.items()}
    other = sorted(name for name in found.keys() | wanted.keys() if found.get(name) != wanted.get(name))
    if other:
        raise BoxelError(
            f"{checkpoint}: its weights are not those of this run, e.g. {other[0]}; restore it from a copy, or start "
            "from scratch in another `out`."
        )


def finish_run(run: Run, model: Any) -> None:
    """Write the model with the best weights by the first measure, which needs true masks, or else with the last ones.

    The second measure, of boxes alone, chooses the weights only if it may have ended the run (`patience`): masks
    improve after it has stopped rising.
    """
    out, measures = run.out, resolve(run.method.task).measures
    found = {path: _open_checkpoint(path) for path in (out / LAST, out / BEST) if path.exists()}
    states = [state for state, _ in found.values() if state is not None]
    for path, (state, reason) in found.items():
        if state is None and not states:
            raise _damaged(path, reason)
        if state is None:
            message = "%s: the checkpoint is damaged (%s), so the model gets the %s weights"
            logger.warning(message, path, reason, "last" if path.name == BEST.name else "best")
    decisive = measures if run.settings.patience else measures[:1]
    # Of equal states `max` takes the first, which is the last of the run.
    kept = max(states, key=lambda state: [state["metrics"].get(measure, 0.0) for measure in decisive])
    weights = {name.removeprefix("model."): tensor for name, tensor in kept["state_dict"].items()}
    model.load_state_dict(weights)
    write_text(out / "metrics.json", json.dumps(kept["metrics"], indent=1))
    if (out / "metrics.csv").is_file():
        plot_curves(out / "metrics.csv", out / "curves.png")
    thresholds = kept.get(SCORE_THRESHOLDS)
    if thresholds:
        write_thresholds(thresholds, out)
        model.settings = model.settings | {SCORE_THRESHOLDS: thresholds}
        message = (
            "minimum scores with the best F1 on the validation images: %s; "
            "`boxel predict --score-threshold best` uses them"
        )
        logger.info(message, describe_thresholds(thresholds))
    model_io.save(model, out, run.record, model.categories)
    if run.method.kind == "box_to_mask":
        export_beside(out)
    made = ("curves.png", "samples", "metrics.json", "model.onnx")
    beside = ", ".join(name for name in made if (out / name).exists())
    logger.info("done: the model of step %d is in %s, beside %s", kept["metrics"]["step"], out, beside)


# ---------------------------------------------------------------- provenance

_VERSIONS = ("torch", "torchvision", "timm", "lightning")

RECORD = "run.json"
"""What a run was trained on, in its folder."""


def write_record(
    run: Run, sources: Mapping[str, Any], data: TrainingData, processes: Fabric, resume: bool
) -> None:
    """Write what a run is trained on to its folder, or add that it was resumed; inputs that have changed are logged.

    Args:
        run: The run.
        sources: What the user gave it to learn from, by the name of the argument: datasets, files, folders, lists of
            these, or None.
        data: What is used of them.
        processes: The processes of the run.
        resume: Whether the run is resumed.
    """
    given = {name: source for name, source in sources.items() if source is not None}
    path, inputs = run.out / RECORD, {name: describe_source(source) for name, source in given.items()}
    is_gpu = processes.device.type == "cuda"
    kind = torch.cuda.get_device_name(processes.device) if is_gpu else processes.device.type
    device = f"{processes.world_size} x {kind}"
    record = _read_record(path) if resume else None
    if record is None:
        versions = {name: str(import_module(name).__version__) for name in _VERSIONS}
        recipe = None if run.recipe is None or isinstance(run.recipe, Mapping) else str(run.recipe)
        settled = {"method": run.method.name, "recipe": recipe, "seed": run.settings.seed, "device": device}
        held = {
            "training": count_masks(data.training),
            "validation": data.validation and count_masks(data.validation),
        }
        record = describe_origin() | settled | {"versions": versions, "inputs": inputs} | held
    else:
        for name, before in record["inputs"].items():
            if before != inputs.get(name):
                # A share that is set aside is drawn again, among all images there are now.
                held_out = data.validation is not None and "val" not in [*given, *data.validation.splits]
                leak = "; images to validate on may have been trained on before" * (
                    held_out and name == "data"
                )
                logger.warning("%s: `%s` has changed since the run started%s.", path, name, leak)
        record.setdefault("resumed", []).append(describe_origin() | {"device": device, "inputs": inputs})
    write_text(path, json.dumps(record, indent=1))


def _read_record(path: Path) -> dict[str, Any] | None:
    """Return the record of a run; None if there is none, or if it is damaged."""
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        return record if isinstance(record["inputs"], dict) else None
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return None
