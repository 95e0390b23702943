"""The folder of a run: start it, check that a run can resume in it, and finish it with the model."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import yaml

from boxel.data.annotations import Category
from boxel.methods import resolve
from boxel.models import io as model_io
from boxel.training.log import rank_zero_logger
from boxel.training.settings import LAST, Run
from boxel.utils.errors import BoxelError
from boxel.utils.files import write_text

logger = rank_zero_logger(__name__)

BEST = Path("checkpoints", "best.ckpt")


def prepare_folder(run: Run, classes: Sequence[Category], resume: bool) -> Path | None:
    """Start a run folder and return None, or find the checkpoint to resume from, if these settings allow it."""
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
    before, now = yaml.safe_load(config.read_text(encoding="utf-8")), yaml.safe_load(yaml.safe_dump(record))
    changed = [name for name in now if before.get(name) != now[name]]
    if model_io.read_categories(out) != tuple(classes):
        changed.append("categories")
    if changed:
        raise BoxelError(
            f"{config}: the run started with other settings ({', '.join(changed)}); resume with the same ones, or "
            "start a new run from its weights with `init`."
        )
    return out / LAST


def count_steps(checkpoint: Path | None) -> int:
    """Return the number of optimizer steps done at a checkpoint; 0 for None."""
    if checkpoint is None:
        return 0
    return torch.load(checkpoint, weights_only=True, mmap=True)["global_step"]


def finish_run(run: Run, model: Any) -> None:
    """Write the model with the best weights by the first measure, which needs true masks, or else with the last ones.

    The second measure, of boxes alone, chooses the weights only if it may have ended the run (`patience`): masks
    improve after it has stopped rising.
    """
    out, measures = run.out, resolve(run.method.task).measures
    files = [out / LAST, out / BEST]
    states = [torch.load(file, map_location="cpu", weights_only=True) for file in files if file.exists()]
    decisive = measures if run.settings.patience else measures[:1]
    # Of equal states `max` takes the first, which is the last of the run.
    kept = max(states, key=lambda state: [state["metrics"].get(measure, 0.0) for measure in decisive])
    weights = {name.removeprefix("model."): tensor for name, tensor in kept["state_dict"].items()}
    model.load_state_dict(weights)
    write_text(out / "metrics.json", json.dumps(kept["metrics"], indent=1))
    model_io.save(model, out, run.record, model.categories)
    beside = ", ".join(name for name in ("curves.png", "samples", "metrics.json") if (out / name).exists())
    logger.info("done: the model of step %d is in %s, beside %s", kept["metrics"]["step"], out, beside)
