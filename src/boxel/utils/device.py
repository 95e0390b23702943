"""The device that a network runs on."""

from __future__ import annotations

from boxel.utils.errors import UsageError, one_line


def resolve_device(name: str = "auto") -> str:
    """Return the device of a name after checking that it is available.

    Args:
        name: ``cpu``, ``cuda``, ``cuda:1``, ``mps``, or ``auto`` for CUDA if available and the CPU otherwise.

    Returns:
        A name that ``torch.device`` accepts. ``cpu`` does not need PyTorch.

    Raises:
        UsageError: The device is not available.

    Example:
        >>> resolve_device("cpu")
        'cpu'
    """
    if name == "cpu":
        return name
    try:
        import torch
    except ImportError:
        if name == "auto":
            return "cpu"
        raise UsageError(
            f"device {name} needs PyTorch, which is not installed; pip install 'boxel[train]', or use cpu."
        ) from None
    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        torch.empty(1, device=name)
    except (RuntimeError, AssertionError) as error:
        raise UsageError(f"device {name} is not available ({one_line(error)}); try cpu.") from error
    return name
