"""Read the texts that a YOLO writes for each image it predicts on, with a confidence at the end of each line.

A line is ``class cx cy w h confidence`` or ``class x1 y1 x2 y2 ... confidence``, coordinates as shares of the image
(https://docs.ultralytics.com/modes/predict/, `save_txt` and `save_conf`); a tracker adds the number of the track.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator, Sequence
from pathlib import Path

from boxel.data.annotations import Annotations
from boxel.data.formats.builder import read_text
from boxel.data.formats.names import files_below
from boxel.data.formats.yolo_rows import parse_words, place_shape
from boxel.data.image_names import ImageNames
from boxel.evaluation.results import Result
from boxel.utils.errors import BoxelError, one_line

logger = logging.getLogger(__name__)


def holds_predictions(folder: Path) -> bool:
    """Return whether a folder holds such texts, in it or in its `labels`; by the first line that is not empty.

    Raises:
        BoxelError: There are texts of a YOLO alone, without images, and their lines have no confidences.
    """
    texts = _find_texts(folder)
    for file in texts:
        for line in read_text(file).splitlines():
            if not line.split():
                continue
            try:
                numbers = [float(word) for word in line.split()]
            except ValueError:
                return False
            if len(numbers) >= 6 and len(numbers) % 2 == 0:
                return 0 <= numbers[-1] <= 1
            if len(numbers) >= 7 and _are_tracked(texts):
                return True
            if len(numbers) >= 5 and all(0 <= number <= 1 for number in numbers[1:]) and _is_bare(folder):
                raise BoxelError(
                    f"{file}: the lines of this prediction have no confidence at their end; predict again with "
                    "`save_conf=True`."
                )
            return False
    return False


def read_yolo_predictions(folder: str | Path, truth: Annotations) -> tuple[list[Result], list[str]]:
    """Read a folder of predictions of a YOLO.

    Args:
        folder: Holds the texts, or a folder `labels` with them.
        truth: The ground truth, for the sizes of the images, which have the names of the texts, and for the classes:
            those of a `classes.txt` beside the texts by their names, else they count from 0 in the order of the ids.

    Returns:
        The detections, and a message per text that cannot be used, each of which is logged too.

    Raises:
        BoxelError: No text has the name of an image.
    """
    folder, results, problems = Path(folder), list[Result](), list[str]()
    names, texts = ImageNames(truth), _find_texts(folder)
    images = [names.find_name(file.as_posix()) for file in texts]
    unknown = [file.name for file, image in zip(texts, images, strict=True) if image is None]
    if len(unknown) == len(texts):
        raise BoxelError(
            f"{folder}: none of its {len(texts)} texts has the name of an image of {truth.file}, e.g. {unknown[0]}; "
            "evaluate against the annotations of the images predicted on."
        )
    if unknown:
        several = f"{len(unknown)} texts are of no image, the first"
        problems.append(f"{folder}: {several if unknown[1:] else '1 text is of no image'}: {unknown[0]}.")
    classes, tracked = _read_classes(folder, truth), _are_tracked(texts)
    for file, image in zip(texts, images, strict=True):
        if image is None:
            continue
        size = truth.image_size(image)
        if 0 in size:
            problems.append(f"{file}: the size of its image is unknown; set `images` to its folder.")
            continue
        rows = _read_lines(file, tracked, problems)
        results += (_to_result(truth.image_ids[image], classes, size, *row) for row in rows)
    for problem in problems:
        logger.warning("%s", problem)
    return results, problems


def _find_texts(folder: Path) -> list[Path]:
    """Return the texts of predictions in a folder, or in its `labels`."""
    inner = folder / "labels"
    texts = files_below(inner if inner.is_dir() else folder, {".txt"})
    return [file for file in texts if file.name != "classes.txt"]


def _is_bare(folder: Path) -> bool:
    """Return whether texts are all that a folder holds."""
    return all(path.suffix.lower() == ".txt" or path.is_dir() for path in folder.rglob("*"))


def _are_tracked(texts: Sequence[Path]) -> bool:
    """Return whether each line ends in the number of a track, a whole number from 1, above 1 at least once."""
    lines = [words for file in texts for line in read_text(file).splitlines() if (words := line.split())]
    tracks = [words[-1] for words in lines]
    odd = all(len(words) >= 7 and len(words) % 2 for words in lines)
    return (
        odd
        and all(track.isdecimal() for track in tracks)
        and any(track not in ("0", "1") for track in tracks)
    )


def _read_classes(folder: Path, truth: Annotations) -> list[int | str]:
    """Return the category id or name of each class number."""
    for file in (folder / "classes.txt", folder / "labels" / "classes.txt", folder.parent / "classes.txt"):
        if file.is_file():
            return [line.strip() for line in read_text(file).splitlines() if line.strip()]
    return sorted(category.id for category in truth.categories)


def _read_lines(file: Path, tracked: bool, problems: list[str]) -> Iterator[tuple[int, list[float], float]]:
    """Yield class, coordinates and confidence of each line; of lines that cannot be used, the first is reported."""
    bad: list[str] = []
    for number, line in enumerate(read_text(file).splitlines(), start=1):
        words = line.split()
        if not words:
            continue
        try:
            class_id, (*shape, score) = parse_words(words[:-1] if tracked else words)
            if len(shape) < 4 or len(shape) % 2 or not all(map(math.isfinite, (*shape, score))):
                raise ValueError(
                    f"its {len(words)} numbers are not a class, a box or polygon and a confidence"
                )
        except ValueError as error:
            bad.append(f"line {number} ({one_line(error)})")
            continue
        yield class_id, shape, score
    if bad:
        several = "1 line cannot be used" if len(bad) == 1 else f"{len(bad)} lines cannot be used, the first"
        problems.append(f"{file}: {several}: {bad[0]}.")


def _to_result(
    image_id: int | str,
    classes: Sequence[int | str],
    size: tuple[int, int],
    label: int,
    shape: list[float],
    score: float,
) -> Result:
    """Return the detection of a line, in pixels."""
    category = classes[label] if label < len(classes) else f"class {label}"
    result: Result = {"image_id": image_id, "category_id": category, "score": score}
    (x0, y0, x1, y1), ring = place_shape(shape, *size)
    result["bbox"] = [x0, y0, x1 - x0, y1 - y0]
    if ring is not None:
        result["segmentation"] = [ring]
    return result
