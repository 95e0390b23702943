"""Label a table of boxes of any size in shards: `boxel label --engine`."""

from __future__ import annotations

import logging
import os
import tempfile
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from boxel.data import Annotations, read
from boxel.data.formats.box_table import BoxTable, Header, import_pyarrow, make_header, write_table
from boxel.data.formats.names import guess_root
from boxel.data.issues import summarize_issues
from boxel.distributed.cost import Estimate, measure_sample
from boxel.distributed.engines import ENGINES
from boxel.distributed.plan import Shard, find_runs, plan_shards
from boxel.distributed.worker import CROWD, EMPTY, FAILED, KEPT, LABELED, NO_BOX, Task
from boxel.labeling.api import load_teachers
from boxel.labeling.calibration import calibrate
from boxel.labeling.config import LabelConfig, parse_label_config
from boxel.labeling.shard import make_labeler
from boxel.labeling.store import describe_changes
from boxel.utils.device import available_cores
from boxel.utils.errors import BoxelError, UsageError, nearest
from boxel.utils.files import make_parent
from boxel.utils.locks import lock_output
from boxel.utils.printable import count_noun
from boxel.utils.progress import progress
from boxel.utils.urls import atomic_url, file_system, is_url, join_url, list_files, open_url

logger = logging.getLogger(__name__)

_RECORD = "_job.json"
_SORTED = "_boxes/boxes.parquet"  # of boxes in another format, or whose rows are not in the order of images


@dataclass(frozen=True)
class LabeledTable:
    """What became of a job.

    Attributes:
        out: The folder of the shards.
        counts: Number of boxes by what became of them, now or in an earlier run.
        labeled: Number of shards labeled now.
        reused: Number of shards that an earlier run had finished.
        failure: Why the first image that failed could not be labeled; empty if none failed.

    Examples:
        >>> LabeledTable("masks", Counter(labeled=7, failed=1), labeled=2, reused=0, failure="a.jpg: ...").summary()
        '2 shards written; 7 of 8 boxes got a mask; 1 failed; the first: a.jpg: ...'
    """

    out: str
    counts: Counter[str]
    labeled: int
    reused: int
    failure: str

    def summary(self) -> str:
        """Summarize the job in one line."""
        shards = f"{count_noun(self.labeled, 'shard')} written"
        done = f"{self.reused} finished before" if self.reused else ""
        boxes = sum(self.counts.values()) - self.counts[CROWD]
        text = f"{self.counts[LABELED]:,} of {boxes:,} boxes got a mask"
        names = {KEPT: "kept theirs", EMPTY: "show no object", NO_BOX: "have no area", FAILED: "failed"}
        others = [f"{self.counts[kind]:,} {words}" for kind, words in names.items() if self.counts[kind]]
        first = [f"the first: {self.failure}"] if self.failure else []
        return "; ".join(filter(None, [shards, done, text, *others, *first]))


class _Record(msgspec.Struct):
    """What the masks of a folder were made from."""

    settings: dict[str, Any]
    boxes: str
    shard: int
    rows: int


def label_table(
    boxes: str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    images: str | os.PathLike[str] | None = None,
    engine: str = "local",
    shard: int = 10_000,
    max_bad: float = 0.01,
    teacher: str | Path | Sequence[str | Path] | None = None,
    calibrate_on: Annotations | str | Path | None = None,
    config: LabelConfig | Mapping[str, object] | None = None,
    **settings: Any,
) -> LabeledTable:
    """Make masks for a table of boxes, shard by shard; the masks depend neither on the engine nor on interruptions.

    Args:
        boxes: A Parquet table with the columns ``image``, ``ann_id``, ``x0``, ``y0``, ``x1``, ``y1`` and ``label``, or
            any format that `boxel.read` knows; tables may be at a URL.
        out: Folder or URL for the shards. The same call resumes after any interruption, and makes no shard twice.
        images: Folder or URL of the images; an image in a tar file is named ``FILE.tar/IMAGE``.
        engine: ``local``: this process, with ``workers`` threads; ``processes``: ``workers`` processes; ``ray``: a
            cluster.
        shard: Number of boxes of a shard at least; those of one image stay together.
        max_bad: Share of the boxes that may be in images that cannot be labeled; above it, the job fails.
        teacher: As for :func:`boxel.label`, but names and folders alone.
        calibrate_on: As for :func:`boxel.labeling.label_data`.
        config: Settings; see :class:`~boxel.labeling.config.LabelConfig`.
        **settings: Single settings that take precedence over ``config``.

    Returns:
        What became of the boxes.

    Raises:
        BoxelError: The boxes, a setting or a file cannot be used, or too many images cannot be labeled.

    Examples:
        >>> import tempfile
        >>> from boxel.data import example_scenes
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     done = label_table(example_scenes().file, folder, teacher="ellipse", relabel=True)
        ...     done.labeled, sum(done.counts.values()) == len(example_scenes().labels)
        (1, True)
    """
    parsed = parse_label_config(config, **settings)
    if engine not in ENGINES:
        raise UsageError(f"there is no engine {engine} ({', '.join(ENGINES)}).{nearest(engine, [*ENGINES])}")
    if parsed.guarantee is not None:
        raise UsageError("a guarantee is about a whole dataset, and a shard is none; leave out `guarantee`.")
    if parsed.overwrite:
        raise UsageError("`overwrite` is not for shards, which are never replaced; name a new folder.")
    folder = os.fspath(out)
    _check_folder(folder)
    with nullcontext() if is_url(folder) else lock_output(folder):
        source = _prepare(boxes, folder, images)
        shards = plan_shards(source.runs, shard)
        task, identity = _make_task(source, folder, parsed, teacher, calibrate_on)
        _check_record(folder, _Record(identity, source.table.digest, shard, len(source.table)))
        finished = {os.path.basename(name) for name in list_files(folder, ".parquet")}
        todo = [one for one in shards if one.name not in finished]
        done = [one for one in shards if one.name in finished]
        counts, failure = _run(task, todo, done, engine, max_bad)
    return LabeledTable(folder, counts, len(todo), len(done), failure)


def estimate(
    boxes: str | os.PathLike[str],
    *,
    images: str | os.PathLike[str] | None = None,
    teacher: str | Path | Sequence[str | Path] | None = None,
    config: LabelConfig | Mapping[str, object] | None = None,
    **settings: Any,
) -> Estimate:
    """Measure on a sample what the job of :func:`label_table` with the same arguments would take.

    Returns:
        What the sample has taken on one core or GPU; its ``describe`` states it for a job of any size.

    Raises:
        BoxelError: As of :func:`label_table`.

    Examples:
        >>> from boxel.data import example_scenes
        >>> estimate(example_scenes().file, teacher="ellipse", relabel=True).boxes
        5
    """
    parsed = parse_label_config(config, **settings)
    with tempfile.TemporaryDirectory(prefix="boxel-") as folder:
        source = _prepare(boxes, folder, images)
        task, _ = _make_task(source, folder, parsed, teacher, None)
        return measure_sample(task, source.runs)


class _Source(NamedTuple):
    """The boxes of a job."""

    table: BoxTable
    header: Header
    images: str
    runs: NDArray[np.int64]  # where the rows of each image begin, and the number of all


def _prepare(boxes: str | os.PathLike[str], out: str, images: str | os.PathLike[str] | None) -> _Source:
    """Return the table of the boxes; they are copied in the order of their images unless they are in it."""
    path = os.fspath(boxes)
    if is_url(path) or _is_box_table(path):
        table = BoxTable(path)
        header = table.header
        folder = os.fspath(images) if images is not None else _guess_images(table)
        runs, together = find_runs(table)
        if together:
            return _Source(table, _with_images(header, folder, out), folder, runs)
        logger.info(
            "%s: the rows of an image are apart; they are sorted into %s", path, join_url(out, _SORTED)
        )
        data = table.read(folder)
    else:
        where = None if images is None or is_url(os.fspath(images)) else Path(images)
        data = read(path, images=where)
        if data.issues:
            logger.warning("%s", summarize_issues(data.issues))
        folder = os.fspath(images) if images is not None and where is None else str(data.root)
        header = make_header(data)
    copy = join_url(out, _SORTED)
    with atomic_url(copy) as temporary:
        write_table(data, temporary, header)
    table = BoxTable(copy)
    return _Source(table, _with_images(header, folder, out), folder, find_runs(table)[0])


def _is_box_table(path: str) -> bool:
    from boxel.data.formats.parquet import holds_boxes

    return Path(path).exists() and holds_boxes(Path(path))


def _guess_images(table: BoxTable) -> str:
    """Return the folder of images that a table names, or one near it."""
    if is_url(table.path):
        return table.header.images
    _, batch = next(table.batches(columns=["image"]), (0, None))
    names = batch["image"].slice(0, 3).to_pylist() if batch is not None else []
    return str(guess_root(Path(table.path), [name or "" for name in names], table.header.images).folder)


def _with_images(header: Header, folder: str, out: str) -> Header:
    """Return what the metadata of the shards state: where the images are, seen from there."""
    if is_url(folder) or is_url(out):
        where = folder if is_url(folder) else ""
    else:
        where = Path(os.path.relpath(os.path.abspath(folder), os.path.abspath(out))).as_posix()
    return msgspec.structs.replace(header, images=where)


def _make_task(
    source: _Source,
    out: str,
    config: LabelConfig,
    teacher: str | Path | Sequence[str | Path] | None,
    calibrate_on: Annotations | str | Path | None,
) -> tuple[Task, dict[str, Any]]:
    """Return what a worker needs, and the settings that its masks depend on."""
    given = config.teachers if teacher is None else [teacher] if isinstance(teacher, str | Path) else teacher
    names = [str(one) for one in given]
    teachers, calibration = load_teachers(names, config, source.table.categories)
    task = Task(
        source.table.path,
        source.header,
        source.images,
        out,
        names,
        config,
        max(1, available_cores() // config.workers),
    )
    if calibrate_on is not None:
        true = calibrate_on if isinstance(calibrate_on, Annotations) else read(calibrate_on)
        calibration = calibrate(true, teachers, config, calibration)
        has_reference = calibration.reference is not None
        task = replace(task, calibration=replace(calibration, reference=None), has_reference=has_reference)
    return task, make_labeler(teachers, config, calibration).settings()


def _check_folder(out: str) -> None:
    """Refuse a folder that cannot be written, or that holds other things."""
    if is_url(out):
        file_system(out)
        return
    path = Path(out)
    if path.suffix.lower() in (".json", ".parquet") or path.is_file():
        raise UsageError(f"{out}: an engine writes a folder of shards; name one.")
    make_parent(path / _RECORD)
    others = [p.name for p in path.iterdir() if p.name[:1] not in "._" and not p.match("part-*.parquet")]
    if others:
        raise BoxelError(f"{out}: there are other files in it, e.g. {sorted(others)[0]}; name a new folder.")


def _check_record(out: str, record: _Record) -> None:
    """Refuse shards that were made from something else; record what new ones are made from."""
    path = join_url(out, _RECORD)
    now = msgspec.to_builtins(record)
    try:
        with open_url(path) as file:
            before = msgspec.json.decode(file.read(), type=_Record)
    except FileNotFoundError:
        before = None
    except msgspec.MsgspecError as error:
        raise BoxelError(f"{path}: is damaged ({error}); name another folder.") from error
    if before is not None:
        then = msgspec.to_builtins(before)
        changed = describe_changes(then.pop("settings"), now.pop("settings"))
        changed = changed or describe_changes(then, now)
        if not changed:
            return
        raise BoxelError(
            f"{out}: its shards were made from something else ({changed}); give the same to resume, or name another "
            "folder."
        )
    with atomic_url(path) as temporary:
        temporary.write_bytes(msgspec.json.format(msgspec.json.encode(record), indent=1))


def _run(
    task: Task, shards: Sequence[Shard], finished: Sequence[Shard], engine: str, max_bad: float
) -> tuple[Counter[str], str]:
    """Label shards; return the numbers of boxes of all by what became of them, and the first failure."""
    counts, failure = _read_counts(task.out, finished)
    total = sum(shard.rows for shard in [*shards, *finished])
    with progress(sum(shard.rows for shard in shards), "boxes") as advance:
        for result in ENGINES[engine](task, shards) if shards else ():
            counts += result.counts
            failure = failure or result.failure
            advance(result.shard.rows)
            _check_failures(counts[FAILED], total, max_bad, failure, task.out)
    _check_failures(counts[FAILED], total, max_bad, failure, task.out)
    return counts, failure


def _check_failures(failed: int, total: int, max_bad: float, failure: str, out: str) -> None:
    if failed > max_bad * total:
        raise BoxelError(
            f"{out}: {failed:,} of {total:,} boxes are in images that cannot be labeled, more than the share of "
            f"{max_bad:g} that is allowed; the first: {failure}"
        )


def _read_counts(out: str, shards: Sequence[Shard]) -> tuple[Counter[str], str]:
    """Return what became of the boxes of finished shards, and the first failure."""
    parquet, counts, failure = import_pyarrow().parquet, Counter[str](), ""
    for shard in shards:
        with open_url(join_url(out, shard.name)) as file:
            rows = parquet.read_table(file, columns=["status", "error"]).to_pylist()
        counts.update(row["status"] for row in rows if row["status"])
        failure = failure or next((row["error"] for row in rows if row["status"] == FAILED), "")
    return counts, failure
