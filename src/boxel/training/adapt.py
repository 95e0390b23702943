"""Go on training a BoxCaseg on the boxes that are to be labeled, before it labels them: the paper's own protocol.

The model's own masks of the boxes serve as hints, so that what it knows is kept while it learns from lines across
boxes and from colors what these images are like.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml

from boxel.data import Annotations
from boxel.data.crops import CropDataset
from boxel.data.dataset import collate
from boxel.data.samplers import MixedBatchSampler
from boxel.labeling.api import label_data
from boxel.labeling.teachers.detector import digest_model
from boxel.models.io import load
from boxel.models.pretrained import folder_of
from boxel.training import train
from boxel.training.recipe import read_config
from boxel.utils.errors import BoxelError

CHANGES: dict[str, Any] = {
    "label": None,
    "model.hint_weight": 1.0,
    "optim.lr": 2e-4,
    "data.mask_classes": None,
    "data.val_share": 0.0,
}
"""How adapting differs from the training that it goes on from."""

_PROBE_STEPS = 3


def adapt(
    data: Annotations,
    minutes: float,
    out: str | Path,
    teacher: str = "boxcaseg",
    report: Callable[[str], None] = print,
    **changes: Any,
) -> Path:
    """A model adapted to the boxes of a set.

    What it was adapted from, and for how long, is kept in ``adapted.json`` in its folder.

    Args:
        data: the set; masks of its own that are trusted are learned from.
        minutes: how long to train, about.
        out: folder of the run. A training that was interrupted goes on; one that is finished is not repeated.
        teacher: the BoxCaseg to go on from, by its name or folder.
        report: is told of progress.
        **changes: settings of the training by path, as of `boxel.train`.

    Returns:
        The folder of the adapted model.

    Raises:
        BoxelError: the folder is of another teacher.
    """
    out, start = Path(out), folder_of(teacher)
    note, origin = out / "adapted.json", digest_model(load(start))
    done = json.loads(note.read_text()) if note.exists() else {"from": origin, "minutes": minutes}
    if done["from"] != origin:
        raise BoxelError(
            f"{out}: was adapted from another model than {teacher}; remove it, or name another --out."
        )
    if (out / "model.safetensors").exists():
        report(f"{out}: adapted already, for {done['minutes']:g} minutes; remove it to adapt anew")
        return out
    out.mkdir(parents=True, exist_ok=True)
    note.write_text(json.dumps(done))
    resume = (out / "checkpoints" / "last.ckpt").exists()
    report(f"adapting {teacher} to {int(data.has_box.sum()):,} boxes for about {minutes:g} minutes: {out}")
    made = label_data(data, teacher=teacher).data
    hinted = replace(made, trusted=data.trusted & data.has_segmentation)
    if resume:
        steps = yaml.safe_load((out / "config.yaml").read_text())["steps"]
    else:
        settings = read_config(start / "config.yaml", "boxcaseg", **CHANGES | changes)
        steps = max(round(60 * minutes / seconds_a_step(start, hinted, settings)), 1)
    train(
        "boxcaseg",
        hinted,
        out=out,
        config=start / "config.yaml",
        init=start,
        resume=resume,
        **CHANGES | changes | {"steps": steps},
    )
    return out


def seconds_a_step(start: Path, data: Annotations, settings: Any) -> float:
    """Seconds that a training step takes here, as a few of them show.

    Args:
        start: folder of the model.
        data: to be learned from.
        settings: the run's.
    """
    model = load(start).train()
    boxed = data.select_instances(data.has_box & ~data.iscrowd)
    dataset = CropDataset(boxed, None, settings.crops, settings.model.margin, model.padding_color)  # type: ignore[arg-type]
    batches = iter(MixedBatchSampler(boxed, 0, settings.crops, settings.batch_size, settings.seed))
    device = "cuda" if settings.device in ("auto", "cuda") and torch.cuda.is_available() else "cpu"
    model.to(device)
    spent = []
    for _ in range(_PROBE_STEPS):
        began = time.perf_counter()
        crops, targets = collate([dataset[pick] for pick in next(batches)])  # type: ignore[arg-type]
        losses = model([crop.to(device) for crop in crops], targets)
        torch.stack(list(losses.values())).sum().backward()
        spent.append(time.perf_counter() - began)
    return float(np.min(spent))
