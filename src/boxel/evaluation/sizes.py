"""The sizes of the images that masks are drawn in."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import replace
from typing import Annotated

import msgspec
import numpy as np
from numpy.typing import NDArray

from boxel.data.annotations import Annotations
from boxel.evaluation.results import Result
from boxel.utils.errors import BoxelError

_Pixels = Annotated[int, msgspec.Meta(gt=0, lt=2**31)]


class _Code(msgspec.Struct):
    size: tuple[_Pixels, _Pixels]


def with_sizes(truth: Annotations, results: Sequence[Result] = (), required: bool = True) -> Annotations:
    """The truth, with the sizes that its file leaves out (0) read from the headers of the image files.

    Where there is no such file, a run-length code tells the size: that of a true mask, else that of a result.

    Args:
        truth: what is there.
        results: detections.
        required: each image with an instance or a result must get a size.

    Raises:
        BoxelError: nothing tells the size of such an image.
    """
    unknown = np.flatnonzero((truth.widths <= 0) | (truth.heights <= 0))
    if not len(unknown):
        return truth
    codes = {result["image_id"]: result.get("segmentation") for result in results}
    widths, heights = truth.widths.copy(), truth.heights.copy()
    for image in unknown.tolist():
        image_id, instances = truth.image_ids[image], truth.instances_in(image)
        code, size = codes.get(image_id), truth.image_size(image)
        if 0 in size:
            size = _coded_size(truth, instances) or size
        if 0 in size and code is not None:
            height, width = code["size"]
            size = width, height
        if required and 0 in size and (len(instances) or image_id in codes):
            raise BoxelError(
                f"{truth.file or 'the truth'}: nothing tells the size of image {image_id}, which masks need; name "
                f"the folder of its file ({truth.image_path(image)}) with --images, or write its width and height."
            )
        widths[image], heights[image] = size
    return replace(truth, widths=widths, heights=heights)


def _coded_size(truth: Annotations, instances: NDArray[np.int64]) -> tuple[int, int] | None:
    """(width, height) of the first run-length code among the masks of some instances."""
    for instance in instances:
        # Polygons have no size, and what can't be read is told where the mask is asked for.
        with contextlib.suppress(msgspec.MsgspecError, RecursionError):
            height, width = msgspec.json.decode(truth.segmentations[instance] or b"", type=_Code).size
            return width, height
    return None
