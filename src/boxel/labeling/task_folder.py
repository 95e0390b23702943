"""A folder of tasks for an annotation tool, and what boxel remembers of it."""

from __future__ import annotations

from pathlib import Path

import msgspec

from boxel.data.annotations import Annotations, ImageId
from boxel.labeling.outputs import Output, image_keys
from boxel.utils.errors import BoxelError, one_line
from boxel.utils.files import atomic_path

TASKS_FILE = "boxel-tasks.msgpack"
"""The file in a folder of tasks by which `merge_tasks` knows what the tool was given."""

Key = tuple[str, ImageId]
"""An object, by the path of its image and its id in the dataset."""


class AddedObject(msgspec.Struct, array_like=True, frozen=True):
    """An object that a merge has added to the dataset."""

    image: str
    id: ImageId  # as the folder reads
    own_id: ImageId  # in the dataset
    state: bytes


class TaskRecord(msgspec.Struct, array_like=True):
    """What a folder of tasks was written from. Rows are those of `output`."""

    format: str
    decided: int  # decisions of the review page before the tasks were written
    output: Output
    states: list[bytes]  # of each row in the dataset, see `state_digest`; empty after a conflict
    marked: list[int]  # rows to correct
    merged: list[int] = []  # rows that a merge has changed
    added: list[AddedObject] = []
    first: list[bytes] = []  # `states` before the first merge; empty if there was none

    @classmethod
    def load(cls, folder: Path) -> TaskRecord:
        """Read the record in a folder of tasks."""
        file = folder / TASKS_FILE
        if not file.is_file():
            raise BoxelError(f"{folder}: `boxel next --to` has not written these tasks; name their folder.")
        try:
            return msgspec.msgpack.decode(file.read_bytes(), type=cls)
        except msgspec.MsgspecError as error:
            raise BoxelError(
                f"{file}: is damaged or of another version of boxel ({one_line(error)}); put the original file back."
            ) from error

    def save(self, folder: Path) -> None:
        """Write the record into a folder of tasks."""
        with atomic_path(folder / TASKS_FILE) as file:
            file.write_bytes(msgspec.msgpack.encode(self))


def decided_before(folder: str | Path) -> int:
    """Return how many decisions of the review page there were when tasks were written.

    Examples:
        >>> decided_before("nowhere")
        Traceback (most recent call last):
        boxel.utils.errors.BoxelError: nowhere: `boxel next --to` has not written these tasks; name their folder.
    """
    return TaskRecord.load(Path(folder)).decided


def task_keys(output: Output) -> list[Key]:
    """Return the key in the dataset of each row of an output."""
    return [(output.paths[i], id) for i, id in zip(output.image_index, output.own_ids, strict=True)]


def index_objects(data: Annotations) -> dict[Key, int]:
    """Return the index of each object of a dataset."""
    paths = image_keys(data.paths)
    return {
        (paths[i], id): row
        for row, (i, id) in enumerate(zip(data.image_index.tolist(), data.ids, strict=True))
    }
