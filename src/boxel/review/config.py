"""What a review page is for."""

from __future__ import annotations

from dataclasses import dataclass

from boxel.labeling.review import DOUBT


@dataclass(frozen=True)
class ReviewConfig:
    """What a review page is for.

    Attributes:
        name: Of the dataset, as a title.
        teacher: Name of what predicts masks, which becomes their source.
        guarantee: IoU with the true masks that the reviewer wants to guarantee, in (0, 1).
        takes_images: Images that are dropped on the page are written into the folder of the dataset.
    """

    name: str = "dataset"
    teacher: str = ""
    guarantee: float = DOUBT
    takes_images: bool = False
