"""`Annotations` as HTML for notebooks: counts, and a few images with their boxes and masks."""

from __future__ import annotations

import base64
import io
from html import escape
from importlib import import_module
from itertools import islice
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from boxel.data.images import read_image
from boxel.utils.errors import BoxelError
from boxel.utils.printable import printable

if TYPE_CHECKING:
    from boxel.data.annotations import Annotations

_THUMBNAILS = 6
_TRIES = 12  # images that are looked at; some may be missing
_SIDE = 200  # pixels


def to_html(data: Annotations) -> str:
    """Return a table of counts and up to six thumbnails; images that cannot be read are skipped."""
    counts = {
        "images": len(data),
        "instances": len(data.labels),
        "with masks": int(data.has_segmentation.sum()),
        "categories": len(data.categories),
        "issues": len(data.issues),
    }
    names = ", ".join(category.name for category in data.categories[:10])
    header = "".join(f"<th>{name}</th>" for name in counts)
    row = "".join(f"<td>{count:,}</td>" for count in counts.values())
    with_instances = np.unique(data.image_index)[:_TRIES].tolist() or range(min(len(data), _TRIES))
    thumbnails = islice(filter(None, (_thumbnail(data, image) for image in with_instances)), _THUMBNAILS)
    return printable(
        f"<div><b>Annotations</b> {escape(data.file)}<table><tr>{header}</tr><tr>{row}</tr></table>"
        f"<p>{escape(names)}{', ...' if len(data.categories) > 10 else ''}</p>{''.join(thumbnails)}</div>"
    )


def _thumbnail(data: Annotations, image: int) -> str | None:
    try:
        pixels = read_image(data.image_path(image))
    except BoxelError:
        return None
    # Drawings are made two layers up; only a notebook, which shows one, needs them here.
    drawn = import_module("boxel.viz.drawing").draw_thumbnail(data, image, pixels, _SIDE)
    file = io.BytesIO()
    Image.fromarray(drawn).save(file, "JPEG", quality=90)
    source = base64.b64encode(file.getvalue()).decode("ascii")
    title = escape(data.paths[image], quote=True)
    return f'<img title="{title}" style="margin:2px" src="data:image/jpeg;base64,{source}">'
