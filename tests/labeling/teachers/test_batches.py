"""Calls of several threads that are made together."""

from concurrent.futures import ThreadPoolExecutor
from threading import Barrier
from time import sleep

import pytest

from boxel.labeling.teachers.batches import CallBatcher


def start(function, items, size):
    """Results of items that threads give while the first call of the function is held; and the batches that it got."""
    batches, gate = [], Barrier(2)

    def recorded(batch):
        if not batches:
            gate.wait(10)
        batches.append(sorted(batch))
        return function(batch)

    call = CallBatcher(recorded, size)
    with ThreadPoolExecutor(len(items)) as pool:
        futures = [pool.submit(call, item) for item in items]
        while len(call._waiting) < len(items) - 1:
            sleep(0.001)
        gate.wait(10)
    return futures, batches


def test_items_that_wait_are_taken_together_up_to_the_size():
    futures, batches = start(lambda items: [10 * item for item in items], list(range(8)), size=3)
    assert [future.result() for future in futures] == [0, 10, 20, 30, 40, 50, 60, 70]
    assert [len(batch) for batch in batches] == [1, 3, 3, 1]


def test_with_a_size_of_one_each_item_is_taken_alone():
    _, batches = start(lambda items: items, list(range(4)), size=1)
    assert [len(batch) for batch in batches] == [1, 1, 1, 1]


def test_an_error_is_only_that_of_the_item_that_causes_it():
    futures, batches = start(lambda items: [1 / item for item in items], [0, 1, 2, 4], size=8)
    with pytest.raises(ZeroDivisionError):
        futures[0].result()
    assert [future.result() for future in futures[1:]] == [1, 0.5, 0.25]
    assert len(batches) <= 6


def test_an_interruption_reaches_all_that_wait_for_the_call():
    """Else threads would wait forever for what nobody computes."""

    def stop(items):
        raise KeyboardInterrupt

    futures, _ = start(stop, [1, 2, 3], size=8)
    assert all(isinstance(future.exception(), KeyboardInterrupt) for future in futures)
