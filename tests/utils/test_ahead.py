"""Working ahead keeps the order, goes only so far ahead, and stops when nobody takes results any more."""

import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing

import pytest

from boxel.utils.ahead import work_ahead


def test_results_come_in_order_though_the_first_is_slowest() -> None:
    def slow(item: int) -> int:
        time.sleep(0.02 * (4 - item))
        return item**2

    with ThreadPoolExecutor(4) as pool:
        found = [(item, future.result()) for item, future in work_ahead(pool, slow, range(4), 3)]
    assert found == [(0, 0), (1, 1), (2, 4), (3, 9)]


@pytest.mark.parametrize(("ahead", "taken"), [(0, [0]), (1, [0, 1]), (3, [0, 1, 2, 3])])
def test_no_more_items_are_taken_than_asked_for(ahead: int, taken: list[int]) -> None:
    begun: list[int] = []
    with ThreadPoolExecutor(1) as pool:
        results = work_ahead(pool, str, (begun.append(item) or item for item in range(9)), ahead)
        assert next(results)[1].result() == "0"
        assert begun == taken
        next(results)
        assert begun == [*taken, len(taken)]
        results.close()


def test_items_that_nobody_waits_for_are_not_begun() -> None:
    done: list[int] = []

    def work(item: int) -> None:
        time.sleep(0.05)
        done.append(item)

    with ThreadPoolExecutor(1) as pool, closing(work_ahead(pool, work, range(9), 8)) as results:
        next(results)[1].result()
    assert done in ([0], [0, 1])  # the second may have begun


def test_an_error_is_that_of_its_item() -> None:
    with ThreadPoolExecutor(2) as pool:
        futures = [future for _, future in work_ahead(pool, int, ["1", "x", "3"], 2)]
    assert [future.exception() is None for future in futures] == [True, False, True]
