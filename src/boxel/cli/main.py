"""The command line: each command parses, calls one function and prints."""

from __future__ import annotations

import logging
import re
import sys
import warnings
from argparse import Action
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from jsonargparse import ArgumentParser, DefaultHelpFormatter, Namespace

from boxel import __version__
from boxel.cli.data import add_check, add_convert, run_check, run_convert
from boxel.cli.evaluate import add_evaluate, run_evaluate
from boxel.cli.label import add_adapt, add_label, run_adapt, run_label
from boxel.cli.options import say
from boxel.cli.predict import add_predict, run_predict
from boxel.cli.tools import (
    add_demo,
    add_export,
    add_inspect,
    add_segments,
    add_tune_crf,
    run_demo,
    run_export,
    run_inspect,
    run_segments,
    run_tune_crf,
)
from boxel.cli.train import add_train, run_train
from boxel.methods import METHODS
from boxel.utils.errors import BoxelError, UsageError, nearest


def main(args: Sequence[str] | None = None) -> int:
    """Run a command.

    Args:
        args: the words after `boxel`; those of the process where None.

    Returns:
        0: done, 1: the data or a file is at fault, 2: wrong usage.
    """
    words = list(sys.argv[1:] if args is None else args)
    debug = "--debug" in words
    words = [word for word in words if word != "--debug"]
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stdout)
    for chatty in ("lightning", "lightning.pytorch", "httpx", "matplotlib", "timm"):
        logging.getLogger(chatty).setLevel(logging.WARNING)
    warnings.showwarning = _print_warning  # type: ignore[assignment]
    if not words or words[0] in ("-h", "--help", "--version"):
        print(f"boxel {__version__}" if words[:1] == ["--version"] else _overview())
        return 0 if words else 2
    # A command may be of two words, as `train boxinst`.
    longer = [known for known in COMMANDS if known.startswith(f"{words[0]} ")]
    if longer and (len(words) == 1 or words[1] in ("-h", "--help")):
        print(_overview(longer))
        return 0 if len(words) > 1 else 2
    count = 2 if longer else 1
    name, rest = " ".join(words[:count]), words[count:]
    if name not in COMMANDS:
        known = list(COMMANDS) if count == 2 else [command.split()[0] for command in COMMANDS]
        print(f"boxel: there is no command {name!r}.{nearest(name, known)}", file=sys.stderr)
        return 2
    description, add_arguments, run = COMMANDS[name]
    parser = ArgumentParser(prog=f"boxel {name}", description=description, formatter_class=_Help)
    add_arguments(parser)
    parser.usage = _usage(parser)
    rest = _spelled_as_declared(parser, rest)
    wrong = _unknown_flag(parser, rest)
    if wrong:
        print(f"boxel: {wrong}", file=sys.stderr)
        return 2
    try:
        # Only what was typed: everything else comes from the recipe or the defaults behind it.
        return run(parser.parse_args(rest, defaults=False))
    except BoxelError as error:
        if debug:
            raise
        print(f"boxel: {_with_flags(str(error), parser)}", file=sys.stderr)
        return 2 if isinstance(error, UsageError) else 1
    except Exception as error:
        if debug:
            raise
        reason = " ".join(str(error).split())
        print(f"boxel: {type(error).__name__}: {reason} (--debug shows where).", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("boxel: stopped.", file=sys.stderr)
        return 1


COMMANDS: dict[str, tuple[str, Callable[[ArgumentParser], None], Callable[[Namespace], int]]] = {
    "check": ("Find what is wrong with a data set, and mend it.", add_check, run_check),
    "label": ("Make masks of boxes, each with an estimate of its quality.", add_label, run_label),
    "adapt": ("Train the bundled network on your boxes and masks.", add_adapt, run_adapt),
    "convert": ("Bring a data set from any format to any other.", add_convert, run_convert),
    **{
        f"train {name}": (method.help, partial(add_train, name), partial(run_train, name))
        for name, method in METHODS.items()
    },
    "evaluate": ("Measure a run or a COCO results file against the truth.", add_evaluate, run_evaluate),
    "predict": (
        "Find and segment instances in photos, or tell the class of each pixel.",
        add_predict,
        run_predict,
    ),
    "export": ("Write a model as an ONNX file that needs no boxel.", add_export, run_export),
    "inspect": ("Measure what a setting should be for your data.", add_inspect, run_inspect),
    "segments": ("Make candidate segments of photos, with nothing learned.", add_segments, run_segments),
    "tune-crf": (
        "Search for the CRF that suits a segmenter, on images it has not learned from.",
        add_tune_crf,
        run_tune_crf,
    ),
    "demo": (
        "Label the bundled photographs; with --train, also train from boxes and from masks on generated scenes.",
        add_demo,
        run_demo,
    ),
}


class _Help(DefaultHelpFormatter):
    """Help that names type and default of a setting, and leaves flags that explain themselves alone."""

    def _get_help_string(self, action: Action) -> str:
        speaks_for_itself = action.default is None or action.nargs == 0
        return action.help or "" if speaks_for_itself else super()._get_help_string(action)


def _usage(parser: ArgumentParser) -> str:
    """What must be given; of a hundred flags, none is."""
    positional = [action for action in parser._actions if not action.option_strings]
    words = [action.dest.upper() + " ..." * (action.nargs == "+") for action in positional]
    return " ".join([parser.prog, *words, "[flags]"])


def _spelled_as_declared(parser: ArgumentParser, words: list[str]) -> list[str]:
    """Settings have underscores and flags have hyphens; either spelling of either will do."""
    known = {flag.replace("-", "_"): flag for action in parser._actions for flag in action.option_strings}
    spelled = []
    for word in words:
        flag, equals, value = word.partition("=")
        spelled.append(
            known.get(flag.replace("-", "_"), flag) + equals + value if flag.startswith("--") else word
        )
    return spelled


def _with_flags(text: str, parser: ArgumentParser) -> str:
    """Render the settings that a message of the library names as flags of this command."""
    known = {flag for action in parser._actions for flag in action.option_strings}

    def render(match: re.Match[str]) -> str:
        flag = "--" + match[1].replace("_", "-")
        return flag if flag in known else match[0]

    return re.sub(r"`(\w+)`", render, text)


def _unknown_flag(parser: ArgumentParser, words: list[str]) -> str:
    known = [flag for action in parser._actions for flag in action.option_strings]
    for word in words:
        flag = word.split("=")[0]
        if flag.startswith("--") and len(flag) > 2 and flag not in known:
            return f"{parser.prog} has no flag {flag!r}.{nearest(flag, known)}"
    return ""


def _overview(names: Sequence[str] | None = None) -> str:
    names = names or list(COMMANDS)
    width = max(map(len, names))
    lines = [f"  {name:<{width}}  {COMMANDS[name][0]}" for name in names]
    return "\n".join(
        [
            "usage: boxel COMMAND ...   (boxel COMMAND --help tells its flags; --debug shows tracebacks)",
            "",
            *lines,
        ]
    )


def _print_warning(message: Warning | str, category: type[Warning], *_: Any) -> None:
    # Warnings of libraries about themselves are for their developers.
    if issubclass(category, UserWarning):
        say(f"warning: {message}")
