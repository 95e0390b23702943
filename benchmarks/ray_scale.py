"""Rate per core and memory of labeling by Ray with the bundled network, beside those of a plain loop.

    python benchmarks/ray_scale.py --boxes 200000 --out runs/ray
    python benchmarks/ray_scale.py --boxes 2000 --plain 1000 --trial

Labels a table of boxes on generated scenes of 320 x 240 pixels, hard links to 200 of them. First `--engine local`
and Ray with one worker label the first --plain boxes, a tenth by default, then Ray with two workers all of them. The
same command resumes. Memory and CPU time of all processes are sampled every few seconds, from /proc (Linux alone).
`--trial` records nothing.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import time
from collections import defaultdict
from pathlib import Path
from typing import Any, NamedTuple

from _record import Table, arguments

SCENES = 200
PAUSE = 2.0
TICKS, PAGE = os.sysconf("SC_CLK_TCK"), os.sysconf("SC_PAGE_SIZE")

START = """
import sys
workers, *words = sys.argv[1:]
if int(workers):
    import ray
    ray.init(num_cpus=int(workers), include_dashboard=False, log_to_driver=False)
from boxel.cli import main
sys.exit(main(words))
"""


class Process(NamedTuple):
    """A process of a job at a moment."""

    key: str  # its number and when it began
    labels: bool
    cpu: float  # seconds
    memory: float  # MB


def generate(folder: Path, boxes: int, plain: int) -> None:
    """Write the images and the tables of all boxes, and of some."""
    import pyarrow
    import pyarrow.parquet

    from boxel.data.synthetic import write_scenes

    if (folder / "some.parquet").exists():
        return
    scenes = write_scenes(folder / "scenes", SCENES, seed=0, height=240, width=320)
    (folder / "images").mkdir(exist_ok=True)
    columns: dict[str, list[Any]] = {
        name: [] for name in ("image", "ann_id", "x0", "y0", "x1", "y1", "label")
    }
    image = 0
    while len(columns["image"]) < boxes:
        scene, name = image % SCENES, f"{image:06d}.png"
        if not (folder / "images" / name).exists():
            os.link(scenes.image_path(scene), folder / "images" / name)
        for row in scenes.instances_in(scene).tolist():
            values = [
                name,
                len(columns["image"]) + 1,
                *scenes.boxes[row].tolist(),
                scenes.categories[scenes.labels[row]].name,
            ]
            for column, value in zip(columns.values(), values, strict=True):
                column.append(value)
        image += 1
    table = pyarrow.table(columns)
    pyarrow.parquet.write_table(table.slice(0, boxes), folder / "all.parquet")
    pyarrow.parquet.write_table(table.slice(0, plain), folder / "some.parquet")


def list_processes(root: int) -> list[Process]:
    """Return a process and all below it."""
    found, children = {}, defaultdict(list)
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            fields = (folder / "stat").read_text().rpartition(")")[2].split()
            command = (folder / "cmdline").read_text()
        except OSError:  # it has ended meanwhile
            continue
        cpu, memory = sum(map(int, fields[11:13])) / TICKS, int(fields[21]) * PAGE / 1e6
        pid = int(folder.name)
        found[pid] = Process(f"{pid} {fields[19]}", "_RayWorker" in command, cpu, memory)
        children[int(fields[1])].append(pid)
    below, ahead = [], [root]
    while ahead:
        pid = ahead.pop()
        below += [found[pid]] if pid in found else []
        ahead += children[pid]
    return below


def run(folder: Path, name: str, table: str, workers: int, shard: int) -> Path:
    """Run a job to its end unless it is there; return the file of its samples."""
    samples, out = folder / f"{name}.jsonl", folder / name
    if (folder / f"{name}.done").exists():
        return samples
    words = ["label", folder / table, "--images", folder / "images", "--out", out, "--shard", shard]
    words += ["--engine", "ray"] if workers else ["--engine", "local", "--workers", 1]
    process = subprocess.Popen([sys.executable, "-c", START, *map(str, [workers, *words])])
    with open(samples, "a", encoding="utf-8") as file:
        while process.poll() is None:
            done = len([*out.glob("part-*.parquet")]) * shard
            file.write(json.dumps([time.time(), done, list_processes(process.pid)]) + "\n")
            file.flush()
            time.sleep(PAUSE)
    if process.returncode:
        sys.exit(f"{name} ended with status {process.returncode}; the same command resumes.")
    (folder / f"{name}.done").touch()
    return samples


def summarize(samples: Path, boxes: int, is_plain: bool) -> dict[str, float]:
    """Return CPU milliseconds per box and the memory of the processes that label."""
    moments = [json.loads(line) for line in samples.read_text(encoding="utf-8").splitlines()]
    root = moments[0][2][0][0]
    cpu, memory = dict[str, float](), defaultdict[str, list[tuple[float, float]]](list)
    labelers = set[str]()
    for _, done, processes in moments:
        for key, labels, seconds, megabytes in processes:
            cpu[key] = seconds
            if labels or (is_plain and key == root):
                labelers.add(key)
                memory[key].append((done, megabytes))
    slopes = [find_slope(points) for points in memory.values()]
    return {
        "CPU ms per box": 1000 * sum(cpu[key] for key in labelers) / boxes,
        "with Ray": 1000 * sum(cpu.values()) / boxes,
        "peak": max(megabytes for points in memory.values() for _, megabytes in points),
        "slope": max(slope for slope in slopes if slope is not None),
    }


def find_slope(points: list[tuple[float, float]]) -> float | None:
    """Return the growth of memory in MB per 10,000 boxes of the job, once a quarter of them is labeled."""
    late = [point for point in points if point[0] >= points[-1][0] / 4]
    if len({done for done, _ in late}) < 3:
        return None
    return 1e4 * statistics.linear_regression(*zip(*late, strict=True)).slope


def main() -> None:
    """Run the three jobs and record them."""
    parser = arguments(__doc__)
    parser.add_argument("--boxes", type=int, default=200_000)
    parser.add_argument("--plain", type=int, help="boxes for one core; a tenth of all by default")
    parser.add_argument("--shard", type=int, default=0, help="boxes of a shard; a hundredth by default")
    parser.add_argument("--out", type=Path, default=Path("runs/ray_scale"))
    parser.add_argument("--trial", action="store_true")
    given = parser.parse_args()
    plain = given.plain or given.boxes // 10
    given.out.mkdir(parents=True, exist_ok=True)
    generate(given.out, given.boxes, plain)
    jobs = {
        "`--engine local`, one thread": ("local", "some.parquet", 0, plain),
        "`--engine ray`, one worker": ("ray-1", "some.parquet", 1, plain),
        "`--engine ray`, two workers": ("ray-2", "all.parquet", 2, given.boxes),
    }
    columns = [
        "boxes",
        "CPU ms per box",
        "rate per core",
        "with Ray's own CPU ms",
        "peak MB",
        "MB per 10,000 boxes",
    ]
    table = Table(
        "scale",
        "ray",
        columns,
        first="job",
        title="Labeling by Ray",
        note="The bundled network on generated scenes. CPU time and memory of the processes that label, the start "
        "included; the rate per core is that of the plain loop divided by it. The last column is how memory grows "
        "after the first quarter of the job, by the process in which it grows fastest.",
    )
    reference = None
    for label, (name, boxes, workers, count) in jobs.items():
        shard = given.shard or max(given.boxes // 100, 1)
        found = summarize(run(given.out, name, boxes, workers, shard), count, not workers)
        reference = reference or found["CPU ms per box"]
        rate = reference / found["CPU ms per box"]
        cells = [round(found["CPU ms per box"], 2), round(rate, 3), round(found["with Ray"], 2)]
        table.add(label, count, *cells, round(found["peak"]), round(found["slope"], 1))
    if not given.trial:
        table.write(seeds=[0])


if __name__ == "__main__":
    main()
