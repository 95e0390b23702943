"""The commands that evaluate a model or a file of predictions, and compare several."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from boxel.cli.options import AGAIN, DATA, JSON_HELP, Command, Option, check_writable, write_json
from boxel.utils.errors import UsageError


def _evaluate_options() -> list[Option]:
    from boxel.cli.parser import settings_options
    from boxel.evaluation.config import EvaluateConfig

    subject = (
        "a model folder or one on the Hugging Face Hub, a file of `boxel export`, COCO results, texts of a YOLO, a "
        "labeled dataset, or a folder of label maps"
    )
    trimap = "plot mean IoU near true boundaries and away from them (semantic models)"
    return [
        Option("subject", subject, positional=True),
        *DATA,
        Option("json", JSON_HELP, metavar="FILE", is_output=True),
        Option("trimap", trimap, metavar="PNG", is_output=True),
        *(
            replace(option, is_output=option.dest in ("report", "results"))
            for option in settings_options(EvaluateConfig())
            if option.dest != "trimap"
        ),
    ]


def _evaluate(given: dict[str, Any]) -> int:
    from boxel.evaluation import TRIMAP_WIDTHS, evaluate

    for name in ("json", "results", "trimap"):
        check_writable(given.get(name, "-"))
    if report := given.get("report"):
        check_writable(report, ".html", ".htm")
    subject, file, plot = given.pop("subject"), given.pop("json", None), given.pop("trimap", None)
    truth = given.pop("annotations")
    if plot:
        given["trimap"] = list(TRIMAP_WIDTHS)
    evaluation = evaluate(subject, truth, **given)
    if file == "-":
        write_json(evaluation.metrics, file)
    elif file:
        write_json(evaluation.metrics | {"info": {"boxel": _describe(subject, truth)}}, file)
    if file != "-":
        print(evaluation.table())
        if report:
            print(f"report: {report}")
    if plot:
        from boxel.viz.plots import plot_trimap

        plot_trimap({Path(subject).resolve().name: evaluation.metrics["trimap"]}, plot)
        print(f"plot: {plot}")
    return 1 if evaluation.errors else 0


def _describe(subject: str, truth: str) -> dict[str, Any]:
    """Describe what made a file of metrics, like `info` of a dataset."""
    from boxel.data.digest import describe_source
    from boxel.models.pretrained import model_folder
    from boxel.utils.provenance import describe_origin

    model = model_folder(subject) / "model.safetensors"
    inputs = {"subject": model if model.is_file() else subject, "annotations": truth}
    return describe_origin() | {"inputs": {name: describe_source(source) for name, source in inputs.items()}}


EVALUATE = Command(
    "Evaluate a model, results, a labeled dataset or label maps against ground truth.",
    "runs/boxinst val.json --images photos/",
    _evaluate_options,
    _evaluate,
    AGAIN,
)


def _compare_options() -> list[Option]:
    from boxel.cli.parser import settings_options
    from boxel.evaluation.config import EvaluateConfig

    subjects = "two or more of what `boxel evaluate` takes, and last the annotations to compare with"
    report = "write an HTML page on the comparison to this file"
    left_out = ("trimap", "report", "results", "boundary", "regions", "baselines", "saliency")
    return [
        Option("subjects", subjects, positional=True, several=True),
        *DATA[1:],
        Option("report", report, metavar="HTML", is_output=True),
        Option("json", JSON_HELP, metavar="FILE", is_output=True),
        *(option for option in settings_options(EvaluateConfig()) if option.dest not in left_out),
    ]


def _compare(given: dict[str, Any]) -> int:
    from boxel.evaluation.compare import compare

    check_writable(given.get("json", "-"))
    if report := given.get("report"):
        check_writable(report, ".html", ".htm")
    *subjects, truth = given.pop("subjects")
    file = given.pop("json", None)
    if len(subjects) < 2:
        raise UsageError(
            "name two runs or more, and last the annotations: boxel compare runs/a runs/b val.json."
        )
    comparison = compare(subjects, truth, **given)
    if file:
        write_json(vars(comparison), file)
    if file != "-":
        print(comparison.table())
        if report:
            print(f"report: {report}")
    return 1 if comparison.errors else 0


COMPARE = Command(
    "Compare runs, results or labeled datasets on the same images, with intervals of their differences.",
    "runs/a runs/b val.json --images photos/ --report compare.html",
    _compare_options,
    _compare,
    AGAIN,
)
