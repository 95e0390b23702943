"""Hostile inputs for every reader and writer: none may crash, hang, fill the memory, or write where it should not.

    python benchmarks/fuzz.py --cases 2500
    python benchmarks/fuzz.py --only coco --case 123                   # one case, with its traceback
    pip install atheris; python benchmarks/fuzz.py --atheris --cases 1000

`tests/fuzz/fuzz_targets.py` has the targets and what a case may do, `tests/fuzz/fuzz_mutations.py` the changes. The
cases of a target run in a fork of this process. It ends if one takes more than 5 s or 1 GB, and another resumes with
the next case. With --atheris, libFuzzer chooses the cases, made by the same changes and its own, by the lines of boxel
that they reach; it keeps those that reach new ones under --corpus, and the smallest for the tests.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import resource
import signal
import sys
import tempfile
import time
import traceback
import zipfile
from collections import Counter
from collections.abc import Callable
from multiprocessing.sharedctypes import RawValue
from pathlib import Path
from random import Random
from typing import Any

from _record import REPO, RESULTS, Table, arguments

sys.path.insert(0, str(REPO / "tests/fuzz"))
sys.dont_write_bytecode = True  # no case may write a file

SECONDS = 5
MAX_BYTES = 1 << 30
KEPT = 6  # inputs per file of a target
MEMORY = "/dev/shm" if os.path.isdir("/dev/shm") else None
TIMEOUT_EXIT = 70  # of libFuzzer
NOTES = {
    "random": "Each case is a small valid input with one file changed. A failure is an exception that is not boxel's "
    "own, more than 5 s of CPU or 1 GB, a file written outside of the target, a program started, a request to the "
    "network, or a name that becomes markup of a page. Peak: memory above that of a process without work. What failed "
    "was repaired, and the target was run again: the rows come from several commits of one day, and from several "
    "values of --cases and --only; without these the command makes 2,500 cases of each target.",
    "atheris": "As above, with the cases chosen by libFuzzer, of the targets that read.",
}


class Progress(ctypes.Structure):
    """What the processes of a target share."""

    _fields_ = (
        ("begun", ctypes.c_long),  # number of cases
        ("read", ctypes.c_long),
        ("refused", ctypes.c_long),  # with an error of boxel
        ("slowest", ctypes.c_double),  # seconds of CPU
        ("peak", ctypes.c_long),  # bytes above what the process had before its first case
    )


class Runner:
    """Runs the cases of a target in this process.

    Args:
        name: The target.
        folder: An empty folder.
        progress: What is counted.
        report: Is called with each failure.
        alarm: End the process by a signal if a case hangs.
    """

    def __init__(
        self, name: str, folder: str, progress: Any, report: Callable[[str], object], alarm: bool = True
    ) -> None:
        from fuzz_targets import TARGETS, Bench

        self.bench = Bench(TARGETS[name], Path(folder))
        self.progress, self.report, self.alarm = progress, report, alarm
        self.before = peak_memory()

    def run(self, file: str, content: bytes) -> None:
        """Run a case, and report if it fails."""
        self.progress.begun += 1
        started = time.process_time()
        self.set_alarm(SECONDS)
        try:
            if self.bench.run(file, content):
                self.progress.read += 1
            else:
                self.progress.refused += 1
        except (KeyboardInterrupt, SystemExit):
            raise
        except BaseException as error:  # one of the bench is not an Exception
            self.report(f"{file}: {describe(error)}")
        self.set_alarm(0)
        used, seconds = peak_memory() - self.before, time.process_time() - started
        if seconds > SECONDS:
            self.report(f"{file}: takes {seconds:.0f} s")
        self.progress.slowest = max(self.progress.slowest, seconds)
        self.progress.peak = max(self.progress.peak, used)
        if used > MAX_BYTES:
            self.report(f"{file}: takes {used >> 20} MB")
            os._exit(0)

    def set_alarm(self, seconds: int) -> None:
        """End the process by a signal after so many seconds of CPU, or 100 times as many at all; 0 for never."""
        if self.alarm:
            signal.setitimer(signal.ITIMER_PROF, seconds)
            signal.setitimer(signal.ITIMER_REAL, 100 * seconds)


def peak_memory() -> int:
    """Return the peak memory of this process in bytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def describe(error: BaseException) -> str:
    """Return place, type and text of an error; the place is the last one in boxel."""
    places = [frame for frame in traceback.extract_tb(error.__traceback__) if "/src/boxel/" in frame.filename]
    place = f"{places[-1].filename.rpartition('/boxel/')[2]}:{places[-1].lineno}" if places else "the bench"
    return f"{place} {type(error).__name__}: {str(error)[:200]!r}"


def fuzz(run: Callable[[Any, Callable[[str], object]], object], count: int, log: Path, name: str) -> Any:
    """Run cases in forks until there are enough, and return the progress; failures are appended to the log."""
    progress = RawValue(Progress)

    def report(failure: str) -> None:
        with log.open("a") as file:
            file.write(json.dumps([name, progress.begun - 1, failure]) + "\n")

    while (begun := progress.begun) < count:
        child = os.fork()
        if not child:
            run(progress, report)
            os._exit(0)
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        if code:
            hangs = code in (-signal.SIGALRM, -signal.SIGPROF, TIMEOUT_EXIT)
            report("hangs" if hangs else f"ends the process ({code})")
        if progress.begun == begun:
            sys.exit(f"{name}: no case can be run")
    return progress


def run_random(name: str, count: int, seed: int) -> Callable[[Any, Callable[[str], object]], None]:
    """Return what runs the cases of a seed in a child."""

    def run(progress: Any, report: Callable[[str], object]) -> None:
        with tempfile.TemporaryDirectory(dir=MEMORY) as folder, silent():
            runner = Runner(name, folder, progress, report)
            while progress.begun < count:
                runner.run(*runner.bench.draw(draw_case(name, seed, progress.begun)))

    return run


def run_atheris(
    name: str, count: int, seed: int, corpus: Path
) -> Callable[[Any, Callable[[str], object]], None]:
    """Return what runs the cases that libFuzzer chooses in a child; it changes one of the files, another per child."""

    def run(progress: Any, report: Callable[[str], object]) -> None:
        import atheris
        from fuzz_mutations import mutate
        from fuzz_targets import read_corpus

        with tempfile.TemporaryDirectory(dir=MEMORY) as folder, silent():
            runner = Runner(name, folder, progress, report, alarm=False)
            files = sorted(runner.bench.seeds, key=lambda file: Path(file).suffix)
            file = files[progress.begun * len(files) // count]
            share = -(-count // len(files))

            def change(content: bytes, size: int, seed: int) -> bytes:
                own = mutate(content, Path(file).suffix, Random(seed))
                return own[:size] if seed % 2 else atheris.Mutate(content, size)

            place = corpus / name / file.replace("/", "_")
            place.mkdir(parents=True, exist_ok=True)
            (place / "seed").write_bytes(runner.bench.seeds[file])
            for number, known in enumerate(read_corpus(name, file)):
                (place / f"known-{number}").write_bytes(known)
            left = min(share, count - progress.begun)
            options = [f"-runs={left}", f"-seed={seed + progress.begun + 1}", f"-timeout={100 * SECONDS}"]
            options += ["-rss_limit_mb=0", "-max_len=100000", f"-artifact_prefix={place.parent}/"]
            atheris.Setup(
                ["fuzz", *options, str(place)], lambda data: runner.run(file, data), custom_mutator=change
            )
            atheris.Fuzz()

    return run


@contextlib.contextmanager
def silent() -> Any:
    """Send what libraries print to nowhere."""
    with open(os.devnull, "w") as nowhere:
        os.dup2(nowhere.fileno(), 1)
        os.dup2(nowhere.fileno(), 2)
        yield


def draw_case(name: str, seed: int, case: int) -> Random:
    """Return what the file of a case and its change are drawn with."""
    return Random(f"{name}/{seed}/{case}")


def main() -> None:
    """Run the cases of all targets, and write the table."""
    parser = arguments(__doc__)
    parser.add_argument("--cases", type=int, default=2500, help="of each target")
    parser.add_argument("--only", nargs="+", metavar="TARGET", help="of which no table is written")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--case", type=int, help="run this one alone, in this process")
    parser.add_argument("--atheris", action="store_true", help="choose cases by coverage")
    parser.add_argument(
        "--corpus", type=Path, default=Path("fuzz-corpus"), help="folder of what atheris keeps"
    )
    parser.add_argument("--log", type=Path, default=Path("fuzz-failures.jsonl"), help="file of the failures")
    args = parser.parse_args()
    if args.case is not None:
        run_one(args.only[0], args.seed, args.case)
        return
    with watch_coverage() if args.atheris else contextlib.nullcontext():
        from fuzz_targets import TARGETS

        rows = {}
        args.log.unlink(missing_ok=True)
        for name in args.only or TARGETS:
            if args.atheris:
                run = run_atheris(name, args.cases, args.seed, args.corpus)
            else:
                run = run_random(name, args.cases, args.seed)
            done = fuzz(run, args.cases, args.log, name)
            failures = done.begun - done.read - done.refused
            rows[name] = [
                done.begun,
                done.read,
                done.refused,
                failures,
                round(done.slowest, 2),
                done.peak >> 20,
            ]
            print(name, *rows[name], flush=True)
    record("atheris" if args.atheris else "random", rows, list(TARGETS), args.seed)
    if args.atheris and args.only is None:
        pack_corpus(args.corpus)


def pack_corpus(corpus: Path) -> None:
    """Keep the smallest inputs of each file in the archive that the tests replay."""
    with zipfile.ZipFile(REPO / "tests/fuzz/corpus.zip", "w", zipfile.ZIP_DEFLATED) as kept:
        for folder in sorted(corpus.glob("*/*/")):
            found = sorted(folder.iterdir(), key=lambda file: (file.stat().st_size, file.name))
            for file in [one for one in found if one.name != "seed" and one.stat().st_size][:KEPT]:
                name = f"{folder.relative_to(corpus).as_posix()}/{file.name}"
                kept.writestr(zipfile.ZipInfo(name), file.read_bytes(), zipfile.ZIP_DEFLATED)


def watch_coverage() -> Any:
    """Return a context in which atheris watches the lines of what is imported from boxel."""
    import atheris

    return atheris.instrument_imports(include=["boxel"])


def record(kind: str, rows: dict[str, list[Any]], order: list[str], seed: int) -> None:
    """Write the table; rows of targets that were not run stay as they are."""
    from fuzz_found import FOUND

    file = RESULTS / "hostile-input.json"
    tables = json.loads(file.read_text())["tables"] if file.exists() else {}
    rows = {row[0]: row[1:7] for row in tables.get(kind, {}).get("rows", ()) if row[0] in order} | rows
    table = Table(
        "hostile-input",
        kind,
        [
            "cases",
            "read",
            "refused in a sentence",
            "failures",
            "slowest, CPU s",
            "peak MB",
            "found before, now tests",
        ],
        first="target",
        title={"random": "Random cases", "atheris": "Cases chosen by coverage"}[kind],
        note=NOTES[kind],
    )
    found = Counter(one.target for one in FOUND)
    for name in sorted(rows, key=order.index):
        table.add(name, *rows[name], found[name])
    sums = [sum(column) for column in zip(*(row[:4] for row in rows.values()), strict=True)]
    table.add("all", *sums, *(max(row[k] for row in rows.values()) for k in (4, 5)), len(FOUND))
    table.write([seed], whole=f"python benchmarks/fuzz.py{' --atheris' * (kind == 'atheris')}")


def run_one(name: str, seed: int, case: int) -> None:
    """Run a case, print what it is, and raise its error."""
    from fuzz_targets import TARGETS, Bench

    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(TARGETS[name], Path(folder))
        file, content = bench.draw(draw_case(name, seed, case))
        print(f"{file}: {content[:2000]!r}", flush=True)
        print("read" if bench.run(file, content) else "refused")


if __name__ == "__main__":
    main()
