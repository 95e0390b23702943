"""`RepairState`: a dataset while it is checked and repaired."""

from __future__ import annotations

from dataclasses import replace
from functools import cached_property
from typing import Any, SupportsIndex

import numpy as np
from numpy.typing import NDArray

from boxel.data.annotations import Annotations
from boxel.data.checks.changes import RepairRecord, compare
from boxel.data.checks.image_facts import ImageFacts
from boxel.data.checks.masks import MaskJudgment
from boxel.data.checks.statistics import Statistics, count_statistics
from boxel.data.issues import Issue, issues_to_json, to_plain

_COLUMNS = (
    *("image_ids", "widths", "heights", "label_maps", "categories"),
    *("ids", "image_index", "labels", "boxes", "segmentations", "extras"),
)


class RepairState:
    """Copies of the columns that repairs change, which rows to leave out, and the issues found.

    Rows keep their place, so that every issue of a row is found, even of one that is left out. What is asked after all
    checks, i.e. `statistics`, `repaired` and `record`, is made once.

    Attributes:
        data: The dataset as it was read.
        keep_images: (I,) bool, False for images to leave out.
        keep: (N,) bool, False for instances to leave out; those of a left-out image count as kept here.
        mask_boxes: (N, 4) float64, tight box of each valid mask, clipped to the image; NaN without one.
        facts: Facts by image, of those that could be decoded.
        judgment: What the masks are, once they are judged.
        category_positions: Position in ``data.categories`` of each of `categories`.
        kinds: Kinds of repaired issues by what they concern, ``image`` or ``instance``, and its position.
        issues: Issues found so far, the reader's first.
        format: The format of the original; empty if unknown.
    """

    def __init__(self, data: Annotations) -> None:
        self.data = data
        self.image_ids = list(data.image_ids)
        self.widths = data.widths.copy()
        self.heights = data.heights.copy()
        self.label_maps = list(data.label_maps)
        self.categories = data.categories
        self.ids = list(data.ids)
        self.image_index = data.image_index.copy()
        self.labels = data.labels.copy()
        self.boxes = data.boxes.copy()
        self.segmentations = data.segmentations.copy()
        self.extras = data.extras.copy()
        self.keep_images = np.ones(len(data.image_ids), dtype=bool)
        self.keep = np.ones(len(data.image_index), dtype=bool)
        self.mask_boxes = np.full((len(data.image_index), 4), np.nan)
        self.facts: dict[int, ImageFacts] = {}
        self.judgment: MaskJudgment | None = None
        self.category_positions = list(range(len(data.categories)))
        self.kinds: dict[tuple[str, int], list[str]] = {}
        self.issues = list(data.issues)
        self.format = ""

    def report_instance(
        self, instance: SupportsIndex, kind: str, what: str, repair: str = "", /, **values: Any
    ) -> None:
        """Report an issue of an annotation; ``what`` continues "annotation 7 (image 3)"."""
        if repair:
            self.kinds.setdefault(("instance", int(instance)), []).append(kind)
        image = self.image_index[instance]
        image_id = self.data.image_ids[image] if 0 <= image < len(self.data.image_ids) else None
        id = self.data.ids[instance]
        message = f"{self.data.file}: annotation {id} (image {image_id}) {what}."
        self.issues.append(Issue(kind, message, self.data.file, image_id, id, to_plain(values), repair))

    def report_image(self, image: int, kind: str, message: str, repair: str = "", /, **values: Any) -> None:
        """Report an issue of an image; ``message`` is a sentence that names its file."""
        if repair:
            self.kinds.setdefault(("image", image), []).append(kind)
        file, id = str(self.data.image_path(image)), self.data.image_ids[image]
        self.issues.append(Issue(kind, message, file, id, None, to_plain(values), repair))

    def report_dataset(
        self, kind: str, what: str, repair: str = "", /, rows: NDArray[np.bool_] | None = None, **values: Any
    ) -> None:
        """Report an issue of the dataset, whose repair changes ``rows``, (N,) bool; ``what`` continues its name."""
        for i in np.flatnonzero(rows).tolist() if rows is not None else []:
            self.kinds.setdefault(("instance", i), []).append(kind)
        message = f"{self.data.file}: {what}."
        self.issues.append(Issue(kind, message, self.data.file, None, None, to_plain(values), repair))

    def current(self) -> Annotations:
        """Return the dataset with the repairs so far, and all its rows; it shares the columns of this state."""
        return replace(self.data, issues=[], **{name: getattr(self, name) for name in _COLUMNS})

    @cached_property
    def statistics(self) -> Statistics:
        """What the original holds."""
        data = self.data
        valid = (data.image_index >= 0) & (data.image_index < len(data))
        valid &= (data.labels >= 0) & (data.labels < len(data.categories))
        bad = np.zeros(len(valid), dtype=bool) if self.judgment is None else self.judgment.bad
        sized = replace(data, widths=self.widths, heights=self.heights)
        if not valid.all():
            sized, bad = sized.select_instances(valid), bad[valid]
        return count_statistics(sized, bad, self.facts, self.format)

    @cached_property
    def record(self) -> RepairRecord:
        """What the repair changed."""
        kept = self.keep & self.keep_images[self.image_index] if len(self.keep_images) else self.keep
        positions = self.category_positions
        record = compare(self.data, self.repaired, kept, self.keep_images, positions, self.kinds)
        record.issues = issues_to_json(self.issues)
        record.left_out_by_reader = issues_to_json([i for i in self.data.issues if i.repair == "left out"])
        return record

    @cached_property
    def repaired(self) -> Annotations:
        """The dataset with its repairs, without the rows left out."""
        return self.current().select_instances(self.keep).select_images(self.keep_images)
