"""What a semantic segmenter learns from boxes, from some masks and from all masks, on generated scenes (Table 2).

    python benchmarks/boxsup_scenes.py --out runs/boxsup_scenes --seeds 0 1 2

200 scenes to learn from, 500 others to measure on. Each row is `boxsup-scenes` with the changes of the row. Segments
and masks are made once. Rows already in --out are not trained again; the self-training row learns from the predictions
of the BoxSup row's network in its training boxes. With --crf each row is measured without a CRF, with the default one,
and with one that is tuned for it on 40 further scenes.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from _record import Table, arguments, spread
from _runs import row_folder, train_once

import boxel
from boxel.crf import CRFConfig
from boxel.data import Annotations
from boxel.data.synthetic import write_scenes
from boxel.evaluation.semantic import measure_segmenter
from boxel.evaluation.tune_crf import best_crf, tune_crf
from boxel.models.semantic.inference import semantic_inference_config

ROWS: dict[str, dict[str, Any]] = {
    "rectangles": {"teacher": "rectangle"},
    "GrabCut": {"teacher": "grabcut"},
    "BoxSup, costs as in the paper": {
        "updates.regression_weight": 3.0,
        "updates.shape_weight": 0.0,
        "updates.min_share": 0.0,
    },
    "segments chosen once": {"updates.every": 0},
    "BoxSup without sampling": {"updates.top_k": 1},
    "BoxSup": {},
    "BoxSup, selective search": {"segments.source": "selective-search"},
    "BoxSup, gop": {"segments.source": "gop"},
    "boxel label": {"teacher": "boxcaseg-boxes"},
    "boxel label, boxcaseg": {"teacher": "boxcaseg"},
    "boxel label, a tenth of the masks": {"teacher": "boxcaseg-boxes", "masks": 0.1, "steps": 500},
    "self-training": {"teacher": "BoxSup"},
    "BoxSup, a tenth of the masks": {"masks": 0.1, "steps": 500},
    "BoxSup, a tenth of the masks, all shown alike": {"masks": 0.1, "mask_share": 0.0},
    "masks": {"masks": 1.0},
}


def main() -> None:
    """Train what is missing, then record mean and standard deviation over the seeds of each row."""
    parser = arguments(__doc__)
    parser.add_argument("--out", type=Path, default=Path("runs/boxsup_scenes"))
    parser.add_argument("--recipe", default="boxsup-scenes")
    parser.add_argument("--rows", nargs="+", choices=ROWS, default=list(ROWS))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--crf", action="store_true")
    args = parser.parse_args()
    scenes = write_scenes(args.out / "train", 200, seed=1)
    truth = write_scenes(args.out / "val", 500, seed=2)
    table = Table("boxsup", "scenes", ["mean IoU", "pixel accuracy", "minutes"], first="learned from")
    for row in args.rows:
        found, minutes = [], []
        for seed in args.seeds:
            changes, out = dict(ROWS[row]), row_folder(args.out, row, seed)
            teacher, masks = changes.pop("teacher", None), changes.pop("masks", 0.0)
            if teacher in ROWS:
                teacher = str(row_folder(args.out, teacher, seed))
            data = learned_from(scenes, teacher, masks, args.out / "masks")
            settings = {"config": args.recipe, "seed": seed, "segments_folder": str(args.out / "segments")}
            minutes.append(train_once("boxsup", data, out, **settings, **changes))
            model = boxel.load(out)
            measured = measure_segmenter(truth, model)
            print(f"{row} {seed}: {measured['per_class']}", flush=True)
            found.append([measured["mean_iou"], measured["pixel_accuracy"]])
            if args.crf:
                apart = write_scenes(args.out / "apart", 40, seed=3)
                best = best_crf(tune_crf(model, apart))
                for name, crf in {"default": CRFConfig(), "tuned": best}.items():
                    after = measure_segmenter(truth, model, semantic_inference_config(model, crf=crf))[
                        "mean_iou"
                    ]
                    print(f"{row} {seed}, {name} CRF: mean IoU {after:.3f} ({crf})", flush=True)
        spent = [value for value in minutes if value is not None]
        table.add(row, *map(spread, zip(*found, strict=True)), (spent and round(np.mean(spent), 1)) or None)
    table.write(args.seeds)


def learned_from(scenes: Annotations, teacher: str | None, share: float, folder: Path) -> Annotations:
    """The scenes with the true masks of a share of the images, the first, and with a teacher's of the others."""
    kept = scenes.image_index < round(share * len(scenes))
    given = replace(scenes, segmentations=np.where(kept, scenes.segmentations, None))
    if teacher is None:
        return given
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / f"{Path(teacher).name}_{share}.json"
    return boxel.label(given, teacher=teacher, merge="none", out=file)


if __name__ == "__main__":
    main()
