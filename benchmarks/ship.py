"""Put a trained BoxCaseg into the package, in half precision: the model that comes with boxel.

    python benchmarks/ship.py runs/boxcaseg boxcaseg

The card, README.md beside the weights, is written by hand.
"""

from __future__ import annotations

import shutil
from pathlib import Path

from _record import arguments

from boxel.models import io

WEIGHTS = Path(__file__).resolve().parents[1] / "src" / "boxel" / "weights"


def main() -> None:
    """Copy a model folder with its weights in half precision."""
    parser = arguments(__doc__)
    parser.add_argument("run", type=Path, help="a finished run")
    parser.add_argument("name", help="what `boxel label --teacher` is to call it")
    args = parser.parse_args()

    model = io.load(args.run)
    target = WEIGHTS / args.name
    io.save(model.half(), target, model.settings, model.categories)  # type: ignore[arg-type]
    shutil.copy(args.run / "metrics.json", target)
    size = (target / "model.safetensors").stat().st_size
    print(f"{target}: {size / 1e6:.1f} MB")


if __name__ == "__main__":
    main()
