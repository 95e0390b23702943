"""Train every method on the same batches in one process, or in one of two; run by `test_ddp.py` and no test itself.

Norms have fixed statistics and torchvision samples the first of the candidates, since both would differ by process.
"""

import copy
import os
import sys
from pathlib import Path

import torch
import torch.nn.functional as F
import yaml

import boxel
from boxel.training import engine
from boxel.training.loader import Stream
from boxel.training.schedule import make_plan


class Joined:
    """The batches of two processes, each pair as one."""

    epoch = skip = 0

    def __init__(self, batches):
        self.parts = [copy.copy(batches) for _ in range(2)]
        for rank, part in enumerate(self.parts):
            part.rank, part.processes = rank, 2

    def __len__(self):
        return len(self.parts[0])

    def __iter__(self):
        for part in self.parts:
            part.epoch, part.skip = self.epoch, self.skip
        for both in zip(*self.parts, strict=True):
            yield [sample for batch in both for sample in batch]


def normalize_by_fixed_statistics(norm, x):
    return F.batch_norm(x, norm.running_mean, norm.running_var, norm.weight, norm.bias, False, 0.0, norm.eps)


def save_start(run, classes, resume, build=engine.build_model):
    model = build(run, classes, resume)
    torch.save(model.state_dict(), run.out / "start.pt")
    return model


def main(folder: Path, processes: int) -> None:
    torch.nn.BatchNorm2d.forward = normalize_by_fixed_statistics
    torch.randperm = lambda count, **given: torch.arange(count, **given)
    if processes == 1:
        engine.Stream = lambda batches, length: Stream(Joined(batches), length)
        engine.make_plan = lambda settings, samples, _, batches: make_plan(
            settings, samples, 2, -(-batches // 2)
        )
        engine.build_model = save_start
    for method, case in yaml.safe_load((folder / "cases.yaml").read_text()).items():
        many = {"strategy": "ddp", "devices": 2} if processes == 2 else {}
        boxel.train(method, out=folder / f"{method}_{processes}", **case, **many)


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(os.environ.get("WORLD_SIZE", "1")))
