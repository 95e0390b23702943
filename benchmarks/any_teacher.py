"""How far can the quality of masks be trusted whose teacher has no calibration?

    python benchmarks/any_teacher.py

Their quality is the IoU that the bundled network expects. It is compared with a calibration of cues that need no
network, which is fitted on masks of the other teachers, and with one on masks of the teacher itself. No bundled teacher
is better than the bundled network: how a network rates masks that are better than its own is shown by
`boxcaseg-boxes`, which rates those of `boxcaseg`.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from _record import Table, arguments
from _runs import read_coco
from domains import KINDS, first_images, read_domain
from numpy.typing import NDArray
from teach import DOMAINS, draw_left_out, read_set

from boxel.data import Annotations
from boxel.evaluation.boxes import quality_metrics
from boxel.labeling.calibration import collect_cues, correct_calibration
from boxel.labeling.config import LabelConfig
from boxel.labeling.quality import CUES, find_calibration, fit_calibration, trust_reference
from boxel.labeling.teachers import make_teacher

TEACHERS = ("rectangle", "ellipse", "grabcut-ellipse", "boxcaseg-boxes", "boxcaseg")
OF_NETWORK = ("expected_iou", "votes_iou", "certainty", "inside", "leakage", "uncut_agreement")
"""Cues that are computed from the probabilities of a network."""
LEARN = {"coco": 150, "coco_new": 60}
"""Masks to fit on; 20 of each other dataset."""

MEASURE, MEASURE_COCO = 30, 200  # boxes of each dataset at most
MAX_BOXES = 40  # per image
TRUE_MASKS, DRAWS = 20, 20

NOTE = (
    "{count} masks of COCO images and 16 other kinds, at most {most} of each of these, which neither a network nor a "
    "calibration has seen. `error` is the mean distance of quality and IoU per mask, `bias` that of the means. "
    "*Cues without a network* are fitted on masks of the four other teachers. A reference rates masks by its own "
    "probabilities; `boxcaseg-boxes` rates those of `boxcaseg`, to see what happens if the teacher is the better one. "
    "{true} true masks: the mean of {draws} draws."
)
Cues = tuple[NDArray[np.float64], NDArray[np.float64]]


def main() -> None:
    """Record a row per teacher and way."""
    args = arguments(__doc__, data=True).parse_args()
    learn, measure = read_learn(args.data), read_measure(args.data)
    fitted_on = {teacher: collect(learn, teacher) for teacher in TEACHERS}
    measured = {teacher: collect(measure, teacher) for teacher in TEACHERS}
    columns = ["quality from", "mask_iou", "bias", "error", "spearman", "calibration_error"]
    count = len(measured[TEACHERS[0]][1])
    note = NOTE.format(count=count, most=MEASURE, true=TRUE_MASKS, draws=DRAWS)
    title = "Quality of teachers without a calibration"
    table = Table("label-quality", "any-teacher", columns, first="teacher", title=title, note=note)
    for teacher in TEACHERS:
        reference = make_teacher("boxcaseg-boxes" if teacher == "boxcaseg" else "boxcaseg")
        (own, ious), (seen, _) = measured[teacher], collect(measure, teacher, reference.name)
        others = [fitted_on[other] for other in TEACHERS if other != teacher]
        general = fit_calibration(
            np.concatenate([select(cues) for cues, _ in others]),
            np.concatenate([found for _, found in others]),
        )
        trusted = trust_reference(reference)
        quality = trusted.estimate(seen)
        table.add(teacher, "its own calibration", *rate(ious, find_calibration(teacher).estimate(own)))
        table.add(teacher, "cues without a network", *rate(ious, general.estimate(select(own))))
        table.add(teacher, f"reference `{reference.name}`", *rate(ious, quality))
        corrected = []
        for seed in range(DRAWS):
            order = np.random.default_rng(seed).permutation(len(ious))
            given, rest = order[:TRUE_MASKS], order[TRUE_MASKS:]
            better = correct_calibration(trusted, quality[given], ious[given])
            corrected.append(rate(ious[rest], better.estimate(seen[rest])))
        table.add(teacher, f"the same and {TRUE_MASKS} true masks", *np.mean(corrected, axis=0))
    table.write(seeds=range(DRAWS))


def read_learn(data: Path) -> dict[str, Annotations]:
    """Read boxes of images that networks may learn from, half of them loosened."""
    rng, sets = np.random.default_rng(0), {}
    for name in (*LEARN, *DOMAINS):
        found = read_set(data, name)
        sets[name] = draw_left_out(found, np.arange(len(found)), LEARN.get(name, 20), 0.5, rng)
    return sets


def read_measure(data: Path) -> dict[str, Annotations]:
    """Read boxes of images that nothing has learned from, without the most crowded images."""
    sets = {"coco": read_coco(data, "val_masks")} | {name: read_domain(data, name) for name in KINDS}
    found = {}
    for name, truth in sets.items():
        few = np.flatnonzero(np.bincount(truth.image_index, minlength=len(truth)) <= MAX_BOXES)
        most = MEASURE_COCO if name == "coco" else MEASURE
        found[name] = first_images(truth.select_images(few), most)
    return found


def collect(sets: Mapping[str, Annotations], teacher: str, reference: str | None = None) -> Cues:
    """Return the cues and the IoU of all masks of a teacher."""
    rated_by = None if reference is None else make_teacher(reference)
    found = [
        collect_cues(truth, [make_teacher(teacher)], LabelConfig(workers=1), reference=rated_by)
        for truth in sets.values()
    ]
    return np.concatenate([cues for cues, _ in found]), np.concatenate([ious for _, ious in found])


def select(cues: NDArray[np.float64]) -> NDArray[np.float64]:
    """Set the cues that need a network to a constant, which no calibration weighs."""
    return np.where(np.isin(CUES, OF_NETWORK), 0.0, cues)


def rate(ious: NDArray[np.float64], quality: NDArray[np.float64]) -> list[float]:
    """Return the numbers of a row."""
    metrics, off = quality_metrics(ious, quality), quality - ious
    return [ious.mean(), off.mean(), np.abs(off).mean(), metrics["spearman"], metrics["calibration_error"]]


if __name__ == "__main__":
    main()
