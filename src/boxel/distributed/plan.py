"""Cut a table of boxes into shards, none of which parts the boxes of an image."""

from __future__ import annotations

from hashlib import blake2b
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from boxel.data.formats.box_table import BoxTable


class Shard(NamedTuple):
    """Some rows of a table of boxes, from ``start`` to ``stop``, which hold all boxes of their images."""

    number: int
    start: int
    stop: int

    @property
    def name(self) -> str:
        """The name of the file with its masks."""
        return f"part-{self.number:06d}.parquet"

    @property
    def rows(self) -> int:
        """Number of rows."""
        return self.stop - self.start


def find_runs(table: BoxTable) -> tuple[NDArray[np.int64], bool]:
    """Find where the rows of each image begin.

    Only the names of the images are read, some at a time.

    Returns:
        (R + 1,) numbers of the first row of each run of rows of one image, and of all rows; and whether each image has
        but one run.
    """
    starts, digests = [np.zeros(0, dtype=np.int64)], list[bytes]()
    last = None
    for first, batch in table.batches(columns=["image"]):
        images = batch["image"].cast("string").fill_null("").dictionary_encode()
        names, codes = images.dictionary.to_pylist(), np.asarray(images.indices)
        begins = np.flatnonzero(np.diff(codes, prepend=-1))
        begins = begins[1:] if names[codes[0]] == last else begins
        last = names[codes[-1]]
        starts.append(first + begins)
        digests += [blake2b(names[code].encode(), digest_size=8).digest() for code in codes[begins].tolist()]
    together = len(np.unique(np.frombuffer(b"".join(digests), dtype=np.uint64))) == len(digests)
    return np.concatenate([*starts, [len(table)]]), together


def plan_shards(runs: NDArray[np.int64], size: int) -> list[Shard]:
    """Cut runs of rows into shards of at least so many rows each, but for the last.

    Args:
        runs: (R + 1,) numbers of the first row of each run, and of all rows.
        size: Number of rows.

    Examples:
        >>> plan_shards(np.array([0, 3, 5, 9, 10]), 4)
        [Shard(number=0, start=0, stop=5), Shard(number=1, start=5, stop=9), Shard(number=2, start=9, stop=10)]
    """
    shards, start = list[Shard](), 0
    while start < runs[-1]:
        stop = int(runs[np.searchsorted(runs, min(start + size, runs[-1]))])
        shards.append(Shard(len(shards), start, stop))
        start = stop
    return shards
