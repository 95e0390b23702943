"""What is installed on this machine, which of it does not work together, and the likely remedy."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, metadata, requires, version

from packaging.requirements import Requirement

from boxel.utils.device import available_cores
from boxel.utils.errors import one_line

_IMPORT_SECONDS = 120  # for PyTorch on a slow disk
_CLASHES = (
    ("opencv-python", "opencv-python-headless"),
    ("onnxruntime", "onnxruntime-gpu"),
)
"""Packages that write the same files, so that whichever was installed last works."""

_DEVICES = """
import torch
found = torch.cuda.is_available()
device = "cuda" if found else "mps" if torch.backends.mps.is_available() else "cpu"
names = [torch.cuda.get_device_name(k) for k in range(torch.cuda.device_count())] if found else []
print(device, *names, torch.version.cuda, sep="|")
"""


@dataclass(frozen=True)
class Finding:
    """One line of what the machine has.

    Attributes:
        name: What was looked at.
        state: What was found.
        remedy: What to do if it is wrong; empty if it is right.
    """

    name: str
    state: str
    remedy: str = ""


def examine() -> Iterator[Finding]:
    """Yield what this machine has, and what is wrong with it.

    Nothing is imported into this process: a library that crashes is a finding.

    Examples:
        >>> next(examine()).name
        'boxel'
    """
    yield Finding("boxel", f"{version('boxel')}, {os.path.dirname(os.path.dirname(__file__))}")
    yield Finding("Python", f"{platform.python_version()}, {sys.executable}")
    yield Finding("system", f"{platform.platform()}, {available_cores()} of {os.cpu_count()} cores")
    yield from _examine_memory()
    yield from _examine_packages()
    yield from _examine_clashes()
    yield from _examine_imports()
    yield from _examine_devices()


def _examine_memory() -> Iterator[Finding]:
    free = shutil.disk_usage(os.getcwd()).free / 1e9
    remedy = "free some space, or work in another folder" if free < 1 else ""
    yield Finding("disk", f"{free:.1f} GB free in {os.getcwd()}", remedy)
    try:
        pages, size = os.sysconf("SC_AVPHYS_PAGES"), os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError, OSError):  # not on Windows and macOS
        return
    memory = pages * size / 1e9
    yield Finding("memory", f"{memory:.1f} GB free", "close other programs" if memory < 1 else "")


def _examine_packages() -> Iterator[Finding]:
    """Compare the packages with what boxel requires; those of an extra may be missing."""
    versions, missing, old = dict[str, str](), dict[str, dict[str, None]](), set[str]()
    for text in requires("boxel") or []:
        needed = Requirement(text)
        if needed.name in old:
            continue  # several extras need it
        extra = next((name for name in _extras() if _belongs_to(needed, name)), "")
        if not extra and needed.marker is not None and not needed.marker.evaluate():
            continue  # for developers, or for another system
        found = _version(needed.name)
        if found is None and extra:
            missing.setdefault(extra, {})[needed.name] = None  # each once, in their order
        elif found is None or not needed.specifier.contains(found, prereleases=True):
            state = "missing" if found is None else f"{found}, but {needed.specifier} is needed"
            remedy = f"pip install --upgrade 'boxel[{extra}]'" if extra else "pip install --upgrade boxel"
            yield Finding(needed.name, state, remedy)
            old.add(needed.name)
        else:
            versions[needed.name] = found
    yield Finding("packages", ", ".join(f"{name} {found}" for name, found in sorted(versions.items())))
    ready = [extra for extra in _extras() if extra not in missing]
    yield Finding("extras", ", ".join(ready) or "none")
    for extra, names in missing.items():
        yield Finding(
            f"without [{extra}]", f"{', '.join(names)}; if you need it, pip install 'boxel[{extra}]'"
        )


def _extras() -> list[str]:
    """Return the extras for users."""
    return [name for name in metadata("boxel").get_all("Provides-Extra") or [] if name not in ("dev", "docs")]


def _belongs_to(needed: Requirement, extra: str) -> bool:
    return (
        needed.marker is not None
        and needed.marker.evaluate({"extra": extra})
        and not needed.marker.evaluate()
    )


def _examine_clashes() -> Iterator[Finding]:
    for names in _CLASHES:
        if all(map(_version, names)):
            keep = names[1]
            remedy = f"pip uninstall {' '.join(names)}, then pip install {keep}"
            yield Finding(" and ".join(names), "both installed: they overwrite each other's files", remedy)


def _version(name: str) -> str | None:
    """Return the version of a package, or None if it is not installed."""
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _examine_imports() -> Iterator[Finding]:
    """Import the large libraries in processes of their own."""
    checks: dict[str, tuple[str, str]] = {
        "opencv-python-headless": ("import cv2", "pip install --force-reinstall opencv-python-headless"),
        "pycocotools": (
            "import pycocotools.mask",
            "pip install --force-reinstall --no-cache-dir pycocotools",
        ),
        "onnxruntime": (
            "import onnxruntime; print(', '.join(onnxruntime.get_available_providers()))",
            "pip install --force-reinstall onnxruntime",
        ),
        "torchvision": (
            "import torch, torchvision; torchvision.ops.nms(torch.zeros(1, 4), torch.zeros(1), 0.5)",
            "torch and torchvision are not of one release; pip install --force-reinstall torch torchvision",
        ),
    }
    for name, (code, remedy) in checks.items():
        if _version(name):
            state, failed = _run(code)
            yield Finding(f"import of {name}", state or "works", remedy if failed else "")


def _examine_devices() -> Iterator[Finding]:
    """Name the devices that PyTorch computes on, and a GPU of the machine that it does not see."""
    driver = shutil.which("nvidia-smi")
    if _version("torch") is None:
        yield Finding("devices", "cpu; training needs PyTorch: pip install 'boxel[train]'")
        return
    state, failed = _run(_DEVICES)
    if failed:
        yield Finding("devices", state, "pip install --force-reinstall torch torchvision")
        return
    device, *names, cuda = state.split("|")
    remedy = ""
    if driver and device != "cuda":
        remedy = (
            "PyTorch is a build for CPUs; install the one for CUDA, see pytorch.org"
            if cuda == "None"
            else f"PyTorch was built for CUDA {cuda}; update the driver, or install the build for its CUDA"
        )
    yield Finding("devices", ", ".join([device, *names]), remedy)


def _run(code: str) -> tuple[str, bool]:
    """Run a few lines in a process of their own; return what they print or the error, and whether they failed."""
    try:
        done = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, timeout=_IMPORT_SECONDS, check=False
        )
    except subprocess.TimeoutExpired:
        return f"no answer within {_IMPORT_SECONDS} seconds", True
    if done.returncode:
        last = (done.stderr.strip().splitlines() or [f"ended by signal {-done.returncode}"])[-1]
        return one_line(last), True
    return done.stdout.strip(), False
