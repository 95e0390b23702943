"""How many images per second does `boxel predict` take, several at once, and how many one after another?

    python benchmarks/predict_folder.py

The bundled `boxinst` predicts on COCO's images of `val_masks.json`, with and without drawings. One after another, an
image is read, goes through the network, gets its masks and is drawn before the next is read. Both ways take turns.
"""

from __future__ import annotations

import json
import tempfile
from functools import partial
from pathlib import Path

import torch
from _record import Table, arguments
from _runs import medians, read_coco, take_turns

import boxel
from boxel.data.sources import to_image
from boxel.models.detector import Detector
from boxel.models.io import load
from boxel.models.thresholds import keep_confident, settle_draw_score


def main() -> None:
    """Take the ways in turns, and record images per second."""
    parser = arguments(__doc__, data=True)
    parser.add_argument("--repeats", type=int, default=5)
    args = parser.parse_args()
    data, model = read_coco(args.data, "val_masks"), load("boxinst")
    paths = [data.image_path(index) for index in range(len(data))]
    note = (
        f"Images per second, {len(paths)} COCO images of about 640 x 480 pixels, {torch.get_num_threads()} threads, "
        f"median of {args.repeats} turns."
    )
    columns = ["one after another", "`boxel predict`", "ratio"]
    table = Table("export", "predict-folder", columns, "output", "Prediction on a folder", note)
    with tempfile.TemporaryDirectory() as temporary:
        out = Path(temporary)
        for label, draw in (("results", None), ("results and drawings", out / "drawn")):
            ways = {
                "after": partial(predict_one_after_another, model, paths, out / "after.json", draw),
                "together": partial(boxel.predict, model, paths, out / "together.json", draw),
            }
            spent = medians(take_turns(ways, args.repeats))
            speeds = [1000 * len(paths) / spent[name] for name in ways]
            table.add(label, *speeds, speeds[1] / speeds[0])
        assert len({len(json.loads((out / f"{name}.json").read_text())) for name in ways}) == 1
    table.write()


def predict_one_after_another(model: Detector, paths: list[Path], out: Path, draw: Path | None) -> None:
    """Do what `boxel predict` does, with each image done before the next is read."""
    rows, score = [], settle_draw_score(model, None)
    for path in paths:
        pixels = to_image(path)
        found = model.predict(pixels)
        rows += [row | {"file_name": path.name} for row in found.to_coco(int(path.stem))]
        if draw is not None:
            keep_confident(found, model, score).save(draw / f"{path.stem}.jpg", pixels)
    out.write_text(json.dumps(rows))


if __name__ == "__main__":
    main()
