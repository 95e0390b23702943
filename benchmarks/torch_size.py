"""How much of an environment with the extra `train` is PyTorch, and how much of that serves GPUs only?

    python benchmarks/torch_size.py

Measures the environment that it runs in, which must have PyTorch's default build.
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch
from _record import Table, arguments
from core_install import package_sizes

GPU_ONLY = ("nvidia", "triton")


def main() -> None:
    """Record a row per part."""
    arguments(__doc__).parse_args()
    sizes = package_sizes(Path(sys.executable))
    note = f"PyTorch {torch.__version__}. The CPU build has neither NVIDIA's libraries nor Triton."
    table = Table("core-install", "torch", ["MB"], first="part", title="PyTorch's default build", note=note)
    for name in ("torch", *GPU_ONLY):
        table.add(name, round(sizes[name]))
    table.add("for GPUs only", round(sum(sizes[name] for name in GPU_ONLY)))
    table.write()


if __name__ == "__main__":
    main()
