"""Take over what a reviewer decided about a dataset."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

from boxel.data import Annotations
from boxel.review.decisions import DecisionStore, Key
from boxel.review.selection import count_states
from boxel.review.session import Review
from boxel.utils.errors import BoxelError


def decisions_path(annotations: str | Path) -> Path:
    """Return the file of the decisions about a dataset, beside it.

    Examples:
        >>> decisions_path("data/masks.json").name, decisions_path("yolo/").name
        ('masks.review.sqlite', 'yolo.review.sqlite')
    """
    path = Path(annotations)
    return path.with_name(f"{path.stem if path.suffix else path.name}.review.sqlite")


def apply_decisions(data: Annotations, decisions: str | Path) -> tuple[Annotations, dict[str, int]]:
    """Return a dataset as a reviewer left it, and the number of its objects by state.

    Args:
        data: The dataset that was reviewed.
        decisions: The file of the decisions.

    Raises:
        BoxelError: There is no such file, or it is damaged.

    Examples:
        >>> import tempfile
        >>> from boxel.data import example_scenes
        >>> data, file = example_scenes(), Path(tempfile.mkdtemp(), "decisions.sqlite")
        >>> Review(data, DecisionStore(file)).decide(0, 0, state="deleted").version
        1
        >>> len(data.ids), len(apply_decisions(data, file)[0].ids)
        (5, 4)
    """
    path = Path(decisions)
    if not path.is_file():
        raise BoxelError(
            f"{path}: there is no such file; review the dataset first, or name the file of its decisions."
        )
    with closing(DecisionStore(path)) as store:
        review = Review(data, store)
        return review.apply(), count_states(review)


def count_decisions(decisions: str | Path) -> int:
    """Return the number of decisions in a file so far; 0 if there is none.

    Examples:
        >>> count_decisions("none.sqlite")
        0
    """
    path = Path(decisions)
    if not path.is_file():
        return 0
    with closing(DecisionStore(path)) as store:
        return store.count()


def decided_after(decisions: str | Path, count: int) -> set[Key]:
    """Return the objects that a reviewer has decided on after the first decisions; none if there is no file of them.

    No clock is asked, as it may have been set meanwhile.

    Args:
        decisions: The file of the decisions.
        count: The number of the first decisions, by `count_decisions`. A file with fewer ones is a new one: all of it
            counts.

    Examples:
        >>> decided_after("none.sqlite", 0)
        set()
    """
    path = Path(decisions)
    if not path.is_file():
        return set()
    with closing(DecisionStore(path)) as store:
        return store.decided_after(count if count <= store.count() else 0)
