"""Work ahead of whoever takes the results, in order and by a bounded number of items."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Executor, Future
from typing import TypeVar

ItemT = TypeVar("ItemT")
ResultT = TypeVar("ResultT")


def work_ahead(
    pool: Executor, function: Callable[[ItemT], ResultT], items: Iterable[ItemT], ahead: int
) -> Generator[tuple[ItemT, Future[ResultT]]]:
    """Yield items in order, each with the future of a function of it, which a pool computes.

    (joblib's ordered generator starts the next item whenever one completes: behind a slow item, the results of all
    others would pile up in memory.)

    Args:
        pool: What computes; items that nobody waits for any more are canceled.
        function: Called with an item.
        items: Taken in the thread of the caller, one at a time.
        ahead: Number of items that are begun, or wait to be taken, beside the one that is yielded.

    Yields:
        An item and its future.

    Examples:
        >>> from concurrent.futures import ThreadPoolExecutor
        >>> with ThreadPoolExecutor(2) as pool:
        ...     [(item, future.result()) for item, future in work_ahead(pool, abs, [-1, 2, -3], ahead=2)]
        [(-1, 1), (2, 2), (-3, 3)]
    """
    waiting: deque[tuple[ItemT, Future[ResultT]]] = deque()
    try:
        for item in items:
            waiting.append((item, pool.submit(function, item)))
            if len(waiting) > ahead:
                yield waiting.popleft()
        while waiting:
            yield waiting.popleft()
    finally:
        for _, future in waiting:
            future.cancel()
