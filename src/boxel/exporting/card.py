"""The model card of a run: what a stranger needs to know about it, as the README.md of its repository."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from boxel.methods import METHODS
from boxel.utils.printable import printable

_TAGS = {
    "detector": ("image-segmentation", "instance-segmentation"),
    "segmenter": ("image-segmentation", "semantic-segmentation"),
    "box_to_mask": ("mask-generation", "box-to-mask"),
}
"""The task of each kind of model, one of those of the hub, and a tag."""

_MAX_CLASSES = 100


def write_card(
    repo: str,
    model: Any,
    metrics: Mapping[str, float],
    record: Mapping[str, Any],
    adapted: Mapping[str, Any] | None = None,
    license: str | None = None,
    datasets: Sequence[str] = (),
) -> str:
    """Return the text of a model card, with its metadata for the hub.

    Args:
        repo: The model on the hub, `owner/name`.
        model: A loaded model, with its `settings` and `categories`.
        metrics: Its metrics.json.
        record: Its run.json; empty if there is none.
        adapted: Its adapted.json, if it was adapted.
        license: An identifier of the hub, e.g. `apache-2.0`.
        datasets: Ids of datasets on the hub that it was trained on.

    Examples:
        >>> from boxel.models.io import load
        >>> print(write_card("anna/masks", load("boxcaseg"), {}, {}).splitlines()[1])
        library_name: boxel
    """
    method = METHODS[model.settings["method"]]
    measured = {
        name.removeprefix("val/"): value
        for name, value in metrics.items()
        # `mask_fill` measures no quality.
        if name.startswith("val/") and name != "val/mask_fill" and math.isfinite(value)
    }
    names = [category.name for category in model.categories]
    names = names[1:] if method.kind == "segmenter" and names[0] == "background" else names
    facts = {
        "repo": repo,
        "method": method,
        "classes": ", ".join(f"`{_as_code(name)}`" for name in names[:_MAX_CLASSES]),
        "number": len(names),
        "settings": model.settings,
        "measured": {name.replace("_", " ").replace("iou", "IoU"): value for name, value in measured.items()},
        "step": metrics.get("step"),
        "training": record.get("training"),
        "validation": record.get("validation"),
        "record": record,
        "adapted": adapted,
        "licensed": license is not None,
        "datasets": datasets,
        "metadata": _metadata(repo, method.kind, model, measured, record, license, datasets),
    }
    loader = PackageLoader("boxel.exporting", ".")
    pages = Environment(loader=loader, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    return pages.get_template("card.md.j2").render(facts)


def _as_code(name: str) -> str:
    return printable(" ".join(name.replace("`", "").split()))


def _metadata(
    repo: str,
    kind: str,
    model: Any,
    measured: Mapping[str, float],
    record: Mapping[str, Any],
    license: str | None,
    datasets: Sequence[str],
) -> str:
    """Return the metadata as YAML: what the hub's search and its tables of results read."""
    from huggingface_hub import EvalResult, ModelCardData

    task, tag = _TAGS[kind]
    count = (record.get("validation") or {}).get("images")
    results = [
        EvalResult(
            task_type=task,
            dataset_type="validation",
            dataset_name="validation images" if count is None else f"{count} validation images",
            metric_type=name,
            metric_value=value,
        )
        for name, value in measured.items()
    ]
    data = ModelCardData(
        library_name="boxel",
        license=license,
        pipeline_tag=task,
        tags=["boxel", model.settings["method"], tag],
        datasets=list(datasets) or None,
        model_name=repo.partition("/")[2] if results else None,
        eval_results=results or None,
    )
    return data.to_yaml()
