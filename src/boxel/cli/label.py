"""The commands label, next, merge and adapt."""

from __future__ import annotations

import math
import shlex
from typing import Any

from boxel.cli.options import (
    AGAIN,
    DATA,
    JSON_HELP,
    RESUMES,
    Command,
    Option,
    check_writable,
    read_data,
    write_json,
)
from boxel.utils.errors import UsageError


def _label_options() -> list[Option]:
    from boxel.cli.parser import settings_options
    from boxel.labeling.config import LabelConfig
    from boxel.utils.config import ClosedUnitInterval, PositiveFloat, PositiveInt

    teacher = (
        "what predicts the masks: boxcaseg, boxcaseg-boxes, grabcut, grabcut-ellipse, grabcut-agree, crf, sam:PATH, "
        "sam-refine:PATH, or a model folder"
    )
    to = "further formats to write, each into a folder beside --out: yolo,voc,labelme,cvat,label-studio,sbd"
    calibrate = "annotations with true masks of at least 20 boxes, to calibrate the quality with"
    tighten = (
        "replace boxes that look loose by the tight boxes of good masks; `original_box` keeps the old ones"
    )
    rotated = "add `corners`, the smallest rotated box around each mask, to its fields"
    engine = (
        "label in shards into the folder --out: local (this process), processes (--workers of them), or ray"
    )
    bad = "with --engine: share of the boxes whose images may fail; above it, the job does"
    annotations, images, _ = DATA  # label maps have no boxes
    return [
        annotations,
        images,
        Option("out", "COCO file of the masks", default="masks.json", metavar="FILE"),
        Option("teacher", teacher, list[str], default=["boxcaseg"]),
        Option("to", to, list[str], metavar="FORMAT,...", default=[]),
        Option("report", "write a page on the masks and their quality", metavar="HTML", is_output=True),
        Option("tighten", tighten, hint=bool, default=False),
        Option("rotated", rotated, hint=bool, default=False),
        Option("calibrate_on", calibrate, aliases=("calibrate",), metavar="FILE", is_input=True),
        Option("engine", engine, metavar="NAME"),
        Option("shard", "with --engine: fewest boxes of a shard", PositiveInt, default=10_000),
        Option("max_bad", bad, ClosedUnitInterval, default=0.01, metavar="SHARE"),
        Option("plan", "label nothing; measure on a sample what it would take", bool),
        Option("plan_boxes", "with --plan: number of boxes, by default all", PositiveInt),
        Option("plan_workers", "with --plan: number of cores or GPUs", PositiveInt, default=1),
        Option("plan_price", "with --plan: price of a core or GPU per hour", PositiveFloat),
        *(option for option in settings_options(LabelConfig()) if option.dest != "teachers"),
    ]


def _label(given: dict[str, Any]) -> int:
    from boxel.labeling.api import label_data
    from boxel.utils.provenance import describe_origin

    shards = {name: given.pop(name) for name in ("shard", "max_bad")}
    workers, boxes, price = (given.pop(f"plan_{name}", None) for name in ("workers", "boxes", "price"))
    if given.pop("plan", False):
        return _plan_label(given, workers, boxes, price)
    if "engine" in given:
        return _label_shards(given | shards)
    report = given.pop("report", None)
    if report:
        check_writable(report, ".html", ".htm")
    outcome = label_data(given.pop("annotations"), **given)
    print(f"{outcome.summary()}\nmasks: {given['out']}")
    if report:
        outcome.write_report(report, describe_origin()["command"])
        print(f"report: {report}")
    if suspects := outcome.describe_suspects():
        where = f"listed in {report}" if report else "`suspect` in the masks file marks each"
        print(f"{suspects}; {where}")
    guarantee = outcome.guarantee
    if outcome.needs_calibration or (guarantee and guarantee.remaining):
        draw = [] if guarantee and guarantee.masks else ["--random"]
        count = (guarantee.missing if guarantee else 0) or 20
        checked = ["--checked", given["calibrate_on"]] if "calibrate_on" in given else []
        words = [given["out"], "--images", str(outcome.data.root), *checked, *draw, "--count", str(count)]
        print(f"next: {shlex.join(['boxel', 'next', *words])} --out next.json")
    return 1 if outcome.failures else 0


def _plan_label(given: dict[str, Any], workers: int, boxes: int | None, price: float | None) -> int:
    from boxel.distributed import estimate

    for name in ("engine", "out", "to", "report", "tighten", "rotated", "calibrate_on", "guarantee"):
        given.pop(name, None)  # they hardly change what a job takes
    found = estimate(given.pop("annotations"), **given)
    print(found.describe(workers, boxes, price))
    return 0


def _label_shards(given: dict[str, Any]) -> int:
    from boxel.distributed import label_table

    for name, value in (("to", []), ("report", None), ("tighten", False), ("rotated", False)):
        if given.pop(name, value) != value:
            raise UsageError(
                f"--{name} needs all masks at once; without --engine, or from the folder afterwards."
            )
    outcome = label_table(given.pop("annotations"), given.pop("out"), **given)
    print(f"{outcome.summary()}\nmasks: {outcome.out}")
    return 1 if outcome.failure else 0


def _next_options() -> list[Option]:
    from boxel.utils.config import NonNegativeInt, PositiveInt

    out = "COCO file of the images with these masks, to correct them; with --to a folder"
    to = "annotation tool to write them for, into the folder --out: labelme, cvat or label-studio"
    draw = "draw the masks at random, which `boxel label --guarantee` assumes"
    checked = "masks that you have corrected so far: they are not listed, and written to --out too"
    annotations, images, _ = DATA
    return [
        annotations,
        images,
        Option("count", "maximum number of masks", PositiveInt, default=20),
        Option("random", draw, bool),
        Option("seed", "seed of the random draw", NonNegativeInt, default=0),
        Option("checked", checked, metavar="FILE", is_input=True),
        Option("out", out, metavar="PATH", is_output=True),
        Option("to", to, metavar="TOOL"),
        Option("json", JSON_HELP, metavar="FILE", is_output=True),
    ]


def _next(given: dict[str, Any]) -> int:
    from boxel.data import read, write
    from boxel.labeling import choose_next, select_next, sort_by_quality, take_checked, write_tasks
    from boxel.review import count_decisions, decisions_path
    from boxel.utils.printable import printable_line

    tool = given.get("to")
    if tool and ("out" not in given or "checked" in given):
        raise UsageError(
            "--to needs --out, the folder to write, and takes no --checked: use `boxel merge` before."
        )
    out = check_writable(given["out"], ".json") if "out" in given and not tool else None
    data = read_data(given)
    checked: list[int] = []
    if "checked" in given:
        data, checked = take_checked(data, read(given["checked"]))
    chosen = choose_next(data, given["count"], random=given.get("random", False), seed=given["seed"])
    if tool:
        chosen = sort_by_quality(data, chosen)
        decided = count_decisions(decisions_path(given["annotations"]))
        write_tasks(data, chosen, given["out"], tool, decided)
    rows = [
        {
            "file": data.paths[data.image_index[one.instance]],
            "id": data.ids[one.instance],
            "class": data.categories[data.labels[one.instance]].name,
            "quality": round(float(data.quality[one.instance]), 3),
            "reason": one.reason,
        }
        for one in chosen
    ]
    if out is not None:
        write(select_next(data, chosen, checked), out)
    if "json" in given:
        known = [row | {"quality": None} if math.isnan(row["quality"]) else row for row in rows]
        write_json(known, given["json"])
    if given.get("json") != "-":
        texts = [list(rows[0]), *([printable_line(str(cell)) for cell in row.values()] for row in rows)]
        widths = [max(map(len, column)) for column in zip(*texts, strict=True)]
        print(*("  ".join(map(str.ljust, row, widths)).rstrip() for row in texts), sep="\n")
        if "out" in given:
            print(f"written to {given['out']}")
        if tool:
            print(f"then: {shlex.join(['boxel', 'merge', given['annotations'], given['out']])}")
    return 0


def _merge_options() -> list[Option]:
    annotations, images, _ = DATA
    return [
        annotations,
        Option(
            "tasks",
            "folder that `boxel next --to` wrote, as the tool left it",
            positional=True,
            is_input=True,
        ),
        images,
        Option("all_checked", "accept the masks to correct that were left as they are, too", bool),
        Option("out", "file to write; by default the annotations themselves", metavar="FILE"),
    ]


def _merge(given: dict[str, Any]) -> int:
    from boxel.data import write
    from boxel.labeling import decided_before, merge_tasks
    from boxel.review import decided_after, decisions_path
    from boxel.utils.locks import lock_output

    source, tasks = given["annotations"], given["tasks"]
    out = check_writable(given.get("out", source), ".json", ".parquet")
    with lock_output(out):
        decided = decided_after(decisions_path(source), decided_before(tasks))
        merged = merge_tasks(
            read_data(given), tasks, all_checked=given.get("all_checked", False), decided=decided
        )
        print(merged.summary().replace("`all_checked`", "--all-checked"))
        if len(merged) or "out" in given:
            write(merged.data, out)
            print(f"written to {out}")
        merged.remember()
    return 0


def _adapt_options() -> list[Option]:
    from boxel.utils.config import PositiveFloat

    return [
        *DATA,
        Option("out", "folder of the adapted model", default="adapted", metavar="FOLDER"),
        Option("masks", "true masks of some boxes, if they are not in the annotations", metavar="FILE"),
        Option("teacher", "the BoxCaseg model to start from", default="boxcaseg"),
        Option("minutes", "about how long to train", PositiveFloat, default=10.0),
    ]


def _adapt(given: dict[str, Any]) -> int:
    from boxel.training.adapt import adapt

    out = given["out"]
    chosen = {name: given[name] for name in ("masks", "teacher", "minutes") if name in given}
    adapt(read_data(given), out, **chosen)
    print(f"adapted model: {out}; use it with `boxel label --teacher {out}`")
    return 0


LABEL = Command(
    "Predict masks of boxes, each with an estimate of its quality.",
    "boxes.json --images photos/ --out masks.json --report report.html",
    _label_options,
    _label,
    RESUMES,
)
NEXT = Command(
    "List the masks whose correction is worth the most, or a random sample.",
    "masks.json --images photos/ --count 20 --out next.json",
    _next_options,
    _next,
    AGAIN,
)
MERGE = Command(
    "Merge masks that were corrected in an annotation tool into the dataset that `boxel next --to` took them from.",
    "masks.json tasks/",
    _merge_options,
    _merge,
    AGAIN,
)
ADAPT = Command(
    "Train the bundled network on a few true masks, or else on your boxes.",
    "boxes.json --images photos/ --masks corrected.json --out my_teacher",
    _adapt_options,
    _adapt,
    AGAIN,
)
