"""What runs the shards of a job: this process, several of this machine, or Ray."""

from __future__ import annotations

import logging
import multiprocessing
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import closing
from dataclasses import replace
from typing import Any

from boxel.distributed.plan import Shard
from boxel.distributed.worker import ShardResult, ShardWorker, Task
from boxel.utils.ahead import work_ahead
from boxel.utils.device import available_cores
from boxel.utils.errors import BoxelError, missing_extra, one_line

_workers: list[ShardWorker] = []  # of a process of the pool


def run_here(task: Task, shards: Sequence[Shard]) -> Iterator[ShardResult]:
    """Label shards in this process, with the threads of the settings."""
    return map(ShardWorker(task), shards)


def run_processes(task: Task, shards: Sequence[Shard]) -> Iterator[ShardResult]:
    """Label shards in as many processes of this machine as the settings have workers, which share its cores."""
    count = task.config.workers
    alone = replace(task, config=replace(task.config, workers=1), threads=max(1, available_cores() // count))
    context = multiprocessing.get_context("spawn")
    with (
        ProcessPoolExecutor(count, context, _start, (alone,)) as pool,
        closing(work_ahead(pool, _run, shards, 2 * count)) as results,
    ):
        try:
            for _, future in results:
                yield future.result()
        except BrokenProcessPool as error:
            raise BoxelError(
                "a process that labels was killed, for lack of memory perhaps; fewer --workers need less, and the same "
                "command resumes."
            ) from error


def _start(task: Task) -> None:
    _workers.append(ShardWorker(task))


def _run(shard: Shard) -> ShardResult:
    return _workers[0](shard)


def run_ray(task: Task, shards: Sequence[Shard]) -> Iterator[ShardResult]:
    """Label shards with Ray Data, one actor per GPU or core of the cluster; Ray does retries and back-pressure.

    An environment variable RAY_ADDRESS names the cluster; without one, it is the cluster that this machine belongs to,
    or Ray starts on this machine.
    """
    try:
        import ray
        import ray.data
    except ImportError as error:
        raise missing_extra("the engine ray", error, "ray") from error
    for name in ("ray", "ray.data"):  # whose notices would hide the progress
        logging.getLogger(name).setLevel(logging.ERROR)
    if not ray.is_initialized():
        try:
            ray.init(log_to_driver=False, logging_level=logging.ERROR)
        except (ConnectionError, RuntimeError) as error:
            raise BoxelError(
                f"Ray does not answer ({one_line(error)}); check RAY_ADDRESS, and RAY_AUTH_MODE if it has a token."
            ) from error
    on_gpu = task.config.device.startswith("cuda") or (task.config.device == "auto" and _gpus(ray))
    # A GPU waits for images unless several threads decode them; a core is busy with one.
    threads = task.config.workers if on_gpu else 1
    alone = replace(task, config=replace(task.config, workers=threads), threads=1)
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    rows = ray.data.from_items([shard._asdict() for shard in shards], override_num_blocks=len(shards))
    labeled = rows.map(
        _RayWorker,  # type: ignore[arg-type]  # Ray takes classes, too
        fn_constructor_args=(alone,),
        # Machines may join later; Ray starts as many as it has room for.
        compute=ray.data.ActorPoolStrategy(min_size=1, max_size=len(shards)),
        num_gpus=1 if on_gpu else None,
        num_cpus=None if on_gpu else 1,
    )
    try:
        for row in labeled.iter_rows():
            yield row["result"]
    except ray.exceptions.RayError as error:
        cause = getattr(error, "cause", None) or error
        raise BoxelError(f"Ray has stopped ({one_line(cause)}); the same command resumes.") from error


class _RayWorker:
    """An actor."""

    def __init__(self, task: Task) -> None:
        self.worker = ShardWorker(task)

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        return {"result": self.worker(Shard(**row))}


def _gpus(ray: Any) -> float:
    return float(ray.cluster_resources().get("GPU", 0))


Engine = Callable[[Task, Sequence[Shard]], Iterator[ShardResult]]

ENGINES: dict[str, Engine] = {"local": run_here, "processes": run_processes, "ray": run_ray}
"""What can run the shards, by name."""
