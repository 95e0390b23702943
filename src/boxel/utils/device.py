"""The device that a network runs on, and the cores of the CPU."""

from __future__ import annotations

import ctypes
import os

from boxel.utils.errors import UsageError, missing_extra, one_line


def resolve_device(name: str = "auto") -> str:
    """Return the device of a name after checking that it is available.

    Args:
        name: ``cpu``, ``cuda``, ``cuda:1``, ``mps``, or ``auto`` for CUDA if available and the CPU otherwise.

    Returns:
        A name that ``torch.device`` accepts. ``cpu`` does not need PyTorch.

    Raises:
        UsageError: The device is not available.

    Examples:
        >>> resolve_device("cpu")
        'cpu'
    """
    if name == "cpu" or (name == "auto" and not _has_gpu_driver()):
        return "cpu"
    try:
        import torch
    except ImportError as error:
        if name == "auto":
            return "cpu"
        raise missing_extra(f"device {name}", error) from error
    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        torch.empty(1, device=name)
    except (RuntimeError, AssertionError) as error:
        raise UsageError(f"device {name} is not available ({one_line(error)}); try cpu.") from error
    return name


def available_cores() -> int:
    """Return the number of cores that this process may use, which may be fewer than the machine has."""
    if hasattr(os, "sched_getaffinity"):  # not on macOS and Windows
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _has_gpu_driver() -> bool:
    """Look for the driver of an NVIDIA or AMD GPU, which takes no seconds as the import of PyTorch does."""
    if os.path.exists("/dev/kfd"):  # AMD's compute driver
        return True
    try:
        ctypes.CDLL("nvcuda.dll" if os.name == "nt" else "libcuda.so.1")
    except OSError:
        return False
    return True
