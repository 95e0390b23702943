"""The command that runs a model on images."""

from __future__ import annotations

from jsonargparse import ArgumentParser, Namespace

from boxel.cli.options import add_inference, parse_scales


def add_predict(parser: ArgumentParser) -> None:
    """Add the flags of `boxel predict`."""
    parser.add_argument(
        "run",
        type=str,
        help="a model folder, boxcaseg, boxcaseg-boxes, or a model's id on the Hugging Face hub",
    )
    parser.add_argument("photos", type=str, nargs="+", help="files, folders or globs")
    parser.add_argument(
        "--boxes", type=str, metavar="FILE", help="annotations whose boxes BoxCaseg makes masks of"
    )
    parser.add_argument(
        "--detector", type=str, metavar="RUN", help="a model whose boxes BoxCaseg makes masks of"
    )
    parser.add_argument(
        "--out",
        type=str,
        help="COCO results file (default: predictions.json); of a segmenter, a folder of label maps (predictions)",
    )
    parser.add_argument(
        "--draw", type=str, metavar="FOLDER", help="write the photos with what is found in them here"
    )
    parser.add_argument("--draw-score", type=float, help="lowest score drawn (default: 0.3)")
    add_inference(parser)


INFERENCE = ("short_side", "long_side", "tile", "shifts", "crf", "flip")
"""Settings of inference that are flags of the same name."""


def run_predict(given: Namespace) -> int:
    """Run `boxel predict`."""
    from boxel.data import read
    from boxel.models.predict import predict

    settings = {name: given[name] for name in INFERENCE if name in given}
    if "scales" in given:
        settings["scales"] = parse_scales(given)
    if "score" in given:
        settings["score_threshold"] = given.score
    summary = predict(
        given.run,
        given.photos,
        given.get("out"),
        given.get("draw"),
        boxes=read(given.boxes) if "boxes" in given else None,
        detector=given.get("detector"),
        draw_score=given.get("draw_score", 0.3),
        batch_size=given.get("batch_size", 1),
        device=given.get("device", "auto"),
        **settings,
    )
    print(summary)
    return 1 if summary.errors else 0
