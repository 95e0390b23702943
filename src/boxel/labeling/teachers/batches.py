"""Batches of the calls of several threads."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from threading import Lock
from typing import Generic, TypeVar

T = TypeVar("T")
R = TypeVar("R")


class CallBatcher(Generic[T, R]):
    """Call a function of a list for several threads, each of which has one item.

    One call runs at a time; items that arrive meanwhile wait, and the next call takes them together. If it fails, its
    items are tried one by one, so that an error is only that of the items that cause it.

    Args:
        function: Takes a list of items and returns a list of their results.
        size: Maximum number of items per call.

    Examples:
        >>> double = CallBatcher(lambda items: [2 * item for item in items], size=4)
        >>> double(3)
        6
    """

    def __init__(self, function: Callable[[list[T]], list[R]], size: int) -> None:
        self._function, self._size, self._lock = function, size, Lock()
        self._waiting: deque[tuple[T, Future[R]]] = deque()

    def __call__(self, item: T) -> R:
        """Return the result of an item, or raise the error that it causes."""
        future: Future[R] = Future()
        self._waiting.append((item, future))
        with self._lock:
            while not future.done():  # else a call of another thread took it
                count = min(len(self._waiting), self._size)
                self._run([self._waiting.popleft() for _ in range(count)])
        return future.result()

    def _run(self, batch: list[tuple[T, Future[R]]]) -> None:
        try:
            results = self._function([item for item, _ in batch])
        except BaseException as error:
            if len(batch) > 1 and isinstance(error, Exception):
                for one in batch:
                    self._run([one])
            else:
                for _, future in batch:
                    future.set_exception(error)
            return
        for (_, future), result in zip(batch, results, strict=True):
            future.set_result(result)
