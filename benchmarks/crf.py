"""Time of the fully connected CRF on an image of 500 x 375 pixels: 21 classes, 10 iterations, lattices included.

    python benchmarks/crf.py
    python benchmarks/crf.py --device cuda

Classes are smooth noise. If pydensecrf2 is installed, both run in turns on the same input, and the largest difference
of the marginals is printed. Times are medians.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from _record import Table, arguments
from _runs import medians, take_turns
from numpy.typing import NDArray
from PIL import Image
from scipy.ndimage import gaussian_filter

from boxel.crf import CRFConfig, mean_field
from boxel.crf.inference import kernels
from boxel.data.samples import sample_images

WIDTH, HEIGHT, CLASSES = 500, 375, 21


def main() -> None:
    """Print and record one row per setting."""
    parser = arguments(__doc__)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--turns", type=int, default=7)
    args = parser.parse_args()
    photo, probabilities = make_input()
    config = CRFConfig()
    image = torch.from_numpy(photo).permute(2, 0, 1)[None].to(args.device) / 255
    scores = torch.from_numpy(probabilities)[None].to(args.device)
    found = mean_field(image, scores, config)[0].cpu()
    rows: dict[str, Callable[[], Any]] = {
        "lattices alone": lambda: kernels(image, config),
        "CRF": lambda: mean_field(image, scores, config),
    }
    if importlib.util.find_spec("pydensecrf"):
        from _densecrf import mean_field as peer

        rows["pydensecrf2"] = lambda: peer(photo, probabilities, *peer_settings(config))
        print(f"largest difference: {np.abs(rows['pydensecrf2']() - found.numpy()).max()}")
    if args.device != "cpu":
        rows = {name: lambda row=row: (row(), torch.accelerator.synchronize()) for name, row in rows.items()}
    print(f"{torch.get_num_threads()} threads, {args.device}")
    table = Table("crf", f"speed-{args.device}", ["ms"], title=f"Speed on {args.device}")
    for name, ms in medians(take_turns(rows, args.turns, warmup=0)).items():
        table.add(name, round(ms))
    table.write()


def make_input() -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
    """Return a photograph, and (K, H, W) probabilities of its classes."""
    photo = np.array(Image.open(sample_images().image_path(0)).convert("RGB").resize((WIDTH, HEIGHT)))
    noise = gaussian_filter(np.random.default_rng(0).normal(size=(CLASSES, HEIGHT, WIDTH)), (0, 8, 8))
    return photo, torch.from_numpy(40 * noise).softmax(0).float().numpy()


def peer_settings(config: CRFConfig) -> tuple[Any, ...]:
    """Return the arguments of `_densecrf.mean_field` after the input."""
    appearance = config.appearance_sigma, config.color_sigma, config.appearance_weight
    return (config.smooth_sigma, config.smooth_weight), appearance, config.iterations


if __name__ == "__main__":
    main()
