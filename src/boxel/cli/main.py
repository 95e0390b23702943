"""The command line: choose a command, parse its arguments, run it, and report errors in one sentence."""

from __future__ import annotations

import gc
import logging
import os
import signal
import sys
import threading
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, redirect_stdout
from pathlib import Path
from typing import TYPE_CHECKING, Any

from boxel import __version__
from boxel.cli.check import CHECK
from boxel.cli.data import CONVERT
from boxel.cli.draw import DRAW
from boxel.cli.evaluate import COMPARE, EVALUATE
from boxel.cli.label import ADAPT, LABEL, MERGE, NEXT
from boxel.cli.options import Command
from boxel.cli.predict import PREDICT
from boxel.cli.push import PUSH
from boxel.cli.review import REVIEW
from boxel.cli.serve import SERVE
from boxel.cli.tools import DEMO, DOCTOR, EXPORT, INSPECT, SEGMENTS, TUNE_CRF
from boxel.cli.train import RECIPES, TRAIN
from boxel.methods import METHODS, get_method
from boxel.utils.errors import BoxelError, UsageError, naming_extra, nearest, one_line
from boxel.utils.printable import PrintableStream, printable_line
from boxel.utils.provenance import set_command
from boxel.utils.urls import is_url

if TYPE_CHECKING:
    from boxel.cli.parser import Parser

COMMANDS: dict[str, Command] = {
    "check": CHECK,
    "convert": CONVERT,
    "label": LABEL,
    "next": NEXT,
    "merge": MERGE,
    "review": REVIEW,
    "serve": SERVE,
    "draw": DRAW,
    "adapt": ADAPT,
    **TRAIN,
    "recipes": RECIPES,
    "evaluate": EVALUATE,
    "compare": COMPARE,
    "predict": PREDICT,
    "export": EXPORT,
    "push": PUSH,
    "inspect": INSPECT,
    "segments": SEGMENTS,
    "tune-crf": TUNE_CRF,
    "doctor": DOCTOR,
    "demo": DEMO,
}


def main(args: Sequence[str] | None = None) -> int:
    """Run a command.

    Args:
        args: The words after `boxel`; those of the process if None.

    Returns:
        The exit code: 0 if all is done, 1 if the data or a file is invalid, 2 for wrong usage.
    """
    # OpenMP reads it when PyTorch is imported. Waiting threads sleep: spinning takes the cores of other programs.
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    # Datasets are many small objects without cycles, among which the default searches for a fifth of the time.
    gc.set_threshold(100_000)
    words = list(sys.argv[1:] if args is None else args)
    debug = "--debug" in words
    try:
        stdout = PrintableStream(sys.stdout)
        with _stop_on_signals(), redirect_stdout(stdout), _log_to_stderr() as handler:  # type: ignore[type-var]
            set_command(words)
            code = _run([word for word in words if word != "--debug"], handler)
        sys.stdout.flush()  # here, where a closed pipe is handled, and not when the process ends
        return code
    except BrokenPipeError:  # what reads the output, e.g. `head`, has read enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except KeyboardInterrupt as stop:
        print(f"boxel: stopped{stop}.", file=sys.stderr)
        return 1
    except Exception as error:  # whatever it is, a user reads one sentence
        if debug:
            raise
        unknown = f"{type(error).__name__}: {one_line(error, 1000)} (--debug shows where)."
        if isinstance(error, OSError) and error.filename is not None:
            unknown = f"{error.filename}: {error.strerror}; check the path."
        text = str(error) if isinstance(error, BoxelError) else unknown
        print(f"boxel: {printable_line(text)}", file=sys.stderr)
        return 2 if isinstance(error, UsageError) else 1
    finally:
        set_command(None)


def build_parser(name: str, show_all: bool = False) -> Parser:
    """Return the parser of a command, e.g. `train boxinst`, whose help may show all settings."""
    from boxel.cli.parser import Parser  # importing it takes longer than printing the list of commands

    return Parser(name, COMMANDS[name], show_all)


def _run(words: list[str], handler: _StderrHandler) -> int:
    """Run the command that the first words name."""
    if not words or words[0] in ("-h", "--help", "--help-all"):
        print(_overview())
        return 0 if words else 2
    if words[0] == "--version":
        print(f"boxel {__version__}")
        return 0
    if words[0] == "--print-completion":
        from boxel.cli.completion import completion_script

        print(completion_script(*words[1:2]), end="")
        return 0
    if words[0] == "train" and (len(words) == 1 or words[1] in ("-h", "--help")):
        print(_overview("train "))
        return 0 if len(words) > 1 else 2
    name, rest = split_command(words)
    asks_help = {"-h", "--help", "--help-all"} & set(rest)
    parser = build_parser(name, "--help-all" in rest)
    if asks_help:
        print(parser.help_text(), end="")
        return 0
    given = parser.parse(rest)
    handler.render = parser.with_flags
    parser.require_files(given)
    try:
        with naming_extra(f"boxel {name.split()[0]}"), _lock_outputs(parser, given):
            return COMMANDS[name].run(given)
    except KeyboardInterrupt as stop:
        stop.args = (f"{stop}; {COMMANDS[name].on_stop}",) if COMMANDS[name].on_stop else stop.args
        raise
    except BoxelError as error:
        error.args = (parser.with_flags(str(error)),)
        raise


def split_command(words: list[str]) -> tuple[str, list[str]]:
    """Split a command line into the name of the command, which may have two words, and the rest."""
    if words[0] == "train":
        if words[1] not in METHODS and Path(words[1]).exists():
            raise UsageError(
                f"boxel train needs a method ({', '.join(METHODS)}); name one before the annotations: "
                f"boxel train boxinst {words[1]}."
            )
        return f"train {get_method(words[1]).name}", words[2:]
    if words[0] not in COMMANDS:
        raise UsageError(f"there is no command {words[0]!r}.{nearest(words[0], [*COMMANDS, 'train'])}")
    return words[0], words[1:]


def _overview(prefix: str = "") -> str:
    """Return the list of commands, or of those that start with a prefix."""
    rows = {}
    for name, command in COMMANDS.items():
        if name in TRAIN and not prefix:
            rows["train METHOD"] = f"Train a model; METHOD is {', '.join(METHODS)}."
        elif name.startswith(prefix):
            rows[name] = command.help
    width = max(map(len, rows))
    table = "\n".join(f"  {name:<{width}}  {help}" for name, help in rows.items())
    return f"""\
usage: boxel {f"{prefix}METHOD" if prefix else "COMMAND"} ...

{table}

boxel COMMAND --help lists the flags of a command; --debug shows tracebacks.
boxel --print-completion bash|zsh|fish prints the completions of a shell; source them."""


@contextmanager
def _lock_outputs(parser: Parser, given: dict[str, Any]) -> Iterator[None]:
    """Hold what a command line names as outputs."""
    from boxel.utils.locks import lock_output

    with ExitStack() as held:
        for option in parser.options:
            path = given.get(option.dest, "-") if option.is_output else "-"
            if path not in ("-", "") and not is_url(path):
                held.enter_context(lock_output(path))
        yield


@contextmanager
def _stop_on_signals() -> Iterator[None]:
    """Let SIGTERM, which ends a job on a cluster, stop a command as Ctrl-C does; a second signal ends it at once."""
    received: list[int] = []

    def stop(number: int, frame: object) -> None:
        if received:
            os._exit(1)  # what it leaves unfinished, the next run removes
        received.append(number)
        raise KeyboardInterrupt

    own = threading.current_thread() is threading.main_thread()  # which alone may set handlers
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM) if own}
    for number in before:
        if before[number] != signal.SIG_IGN:
            signal.signal(number, stop)
    try:
        yield
    finally:
        for number, handler in before.items() if not received else ():
            signal.signal(number, handler)


@contextmanager
def _log_to_stderr() -> Iterator[_StderrHandler]:
    """Print what boxel logs and warns of to standard error, each warning once."""
    handler, root, own = _StderrHandler(), logging.getLogger(), logging.getLogger("boxel")
    level = own.level
    root.addHandler(handler)
    own.setLevel(logging.INFO)
    try:
        with warnings.catch_warnings():
            # Warnings of libraries about their own use are for their developers.
            warnings.simplefilter("ignore")
            warnings.simplefilter("default", UserWarning)
            warnings.showwarning = lambda message, *_: own.warning("%s", message)  # type: ignore[assignment]
            yield handler
    finally:
        own.setLevel(level)
        root.removeHandler(handler)


class _StderrHandler(logging.Handler):
    """Print log records to what standard error is at the time; a warning that is repeated is printed once."""

    def __init__(self) -> None:
        super().__init__()
        self.render: Callable[[str], str] = str
        self._warnings: set[str] = set()

    def emit(self, record: logging.LogRecord) -> None:
        """Print a record."""
        text = self.render(record.getMessage())
        if record.levelno >= logging.WARNING:
            text = f"warning: {text.removeprefix('warning: ')}"
            if text in self._warnings:
                return
            self._warnings.add(text)
        print(printable_line(text), file=sys.stderr, flush=True)
