"""The parser of one command: flags from settings, help, and errors in one sentence."""

from __future__ import annotations

import re
from argparse import SUPPRESS, ArgumentParser, BooleanOptionalAction, RawDescriptionHelpFormatter
from collections.abc import Callable, Sequence
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any, NoReturn, get_type_hints

from docstring_parser import parse as parse_docstring

from boxel.cli.options import Command, Option
from boxel.cli.values import choices, default_metavar, default_text, describe_value, plain_type, read_value
from boxel.utils.errors import BoxelError, UsageError, nearest
from boxel.utils.urls import is_url

_PATHS = {"report": "HTML", "results": "FILE", "sheet": "FILE", "files": "FOLDER"}
"""What the help calls the values of settings that are paths."""


class Parser(ArgumentParser):
    """Parse the words after the name of a command, e.g. `train boxinst`; `show_all` shows every setting in the help."""

    def __init__(self, name: str, command: Command, show_all: bool = False):
        super().__init__(
            prog=f"boxel {name}",
            description=command.help,
            epilog=f"example: boxel {name} {command.example}".rstrip(),
            formatter_class=RawDescriptionHelpFormatter,
            allow_abbrev=False,
            add_help=False,
        )
        self.options = command.options()
        self._show_all = show_all
        must = [
            f"[{option.name}]" if option.value_optional else option.name + " ..." * option.several
            for option in self.options
            if option.positional
        ]
        self.usage = " ".join([self.prog, *must, "[flags]"])  # what must be given; of all the flags, none is
        groups = {
            option.group: self.add_argument_group(option.group) for option in self.options if option.group
        }
        for option in self.options:
            self._add(option, groups.get(option.group, self))

    def _add(self, option: Option, group: Any) -> None:
        """Add an option to argparse, which knows the default only if the library does not."""
        hidden = option.hidden and not self._show_all
        how: dict[str, Any] = {"help": SUPPRESS if hidden else self.with_flags(_help_text(option))}
        if option.is_switch:
            how |= {"action": BooleanOptionalAction}
        else:
            how |= {"type": _make_reader(option), "nargs": "+" if option.several else None}
            how |= {"metavar": option.metavar or default_metavar(option.hint)}
            how |= {"nargs": "?", "const": ""} if option.value_optional else {}
        if option.positional:
            how |= {"default": SUPPRESS} if option.value_optional else {}
            group.add_argument(option.dest, **how | {"metavar": option.name})
        else:
            unknown = option.default is None or option.is_setting
            group.add_argument(
                option.name, dest=option.dest, default=SUPPRESS if unknown else option.default, **how
            )

    def parse(self, words: Sequence[str]) -> dict[str, Any]:
        """Return the values in the words of a command line, by the names of their settings, dotted for a section.

        A setting that was not given is not among them, unless the command has a default for it. What is wrong with a
        word is a :class:`UsageError`.
        """
        spellings = {flag: option.name for option in self.options for flag in option.flags}
        spelled = []
        for word in words:
            flag, equals, value = word.partition("=")
            if word.startswith("--"):
                flag = flag.replace("_", "-")
            spelled.append(spellings.get(flag, flag) + equals + value)
        return vars(self.parse_args(spelled))

    def require_files(self, given: dict[str, Any]) -> None:
        """Raise a :class:`BoxelError` unless the files and folders to read are there."""
        for option in self.options:
            value = given.get(option.dest, []) if option.is_input else []
            for path in [value] if isinstance(value, str) else value:
                if not is_url(path) and not Path(path).exists():
                    raise BoxelError(f"{path}: there is no such file or folder; check the path.")

    def with_flags(self, text: str) -> str:
        """Return a message of the library in which names of settings are flags of this command."""
        names = {option.dest: option.name for option in self.options}
        return re.sub(r"`([a-z_.]+)`", lambda match: names.get(match[1], match[0]), text)

    def help_text(self) -> str:
        """Return the help: usage, flags that are shown, and an example."""
        hidden = sum(option.hidden for option in self.options)
        more = f"\n{hidden} more settings: {self.prog} --help-all\n" if hidden and not self._show_all else ""
        return self.format_help() + more

    def error(self, message: str) -> NoReturn:
        """Raise a :class:`UsageError` that states in one sentence what argparse complains about."""
        raise UsageError(self._explain(message))

    def _explain(self, message: str) -> str:
        options = {option.name: option for option in self.options}
        if found := re.match(r"argument (--[^\s:/]+)\S*: (.*)", message):
            flag, hint = found[1], options[found[1]].hint
            if "explicit argument" in found[2]:
                return f"{flag} takes no value; write {flag} or --no-{flag[2:]}."
            return f"{flag} needs a value{'' if plain_type(hint) is str else f': {describe_value(hint)}'}."
        if found := re.match(r"the following arguments are required: ([^\s,]+)", message):
            return f"{self.prog} needs {found[1]}: {options[found[1]].help}."
        if found := re.match(r"unrecognized arguments: ([^\s=]+)", message):
            word, known = found[1], [flag for option in self.options for flag in option.spellings]
            if (name := word.lstrip("-").upper()) in options:
                return f"{self.prog} takes {name} without a flag (usage: {self.usage})."
            if word.startswith("-"):
                return f"{self.prog} has no flag {word!r}.{nearest(word, known) or f' Usage: {self.usage}'}"
            return f"{self.prog} has no use for {word!r}; leave it out (usage: {self.usage})."
        return f"{message} ({self.prog} --help lists the flags)."


def settings_options(settings: Any, prefix: str = "") -> list[Option]:
    """Return an option for each field of a settings dataclass and of those within it, with the help of its docstring.

    `settings` has the defaults, and `prefix` is the path of its section with a dot at the end.
    """
    hints, texts = get_type_hints(type(settings)), _attribute_texts(type(settings))
    group = f"{prefix[:-1]}: {texts['']}" if prefix else ""
    options = []
    for field in fields(settings):
        path, default = prefix + field.name, getattr(settings, field.name)
        if is_dataclass(default):
            options += settings_options(default, f"{path}.")
        else:
            text, hint = texts.get(field.name, ""), hints[field.name]
            metavar = _PATHS.get(path, "")
            options.append(Option(path, text, hint, metavar, default=default, is_setting=True, group=group))
    return options


def _attribute_texts(kind: type) -> dict[str, str]:
    """Return the description of each field from the docstrings of a dataclass and its bases; "" is the class's own."""
    texts: dict[str, str] = {}
    for base in reversed(kind.__mro__):
        if is_dataclass(base):
            parsed = parse_docstring(base.__doc__ or "")
            texts |= {entry.arg_name: " ".join((entry.description or "").split()) for entry in parsed.params}
            texts[""] = (parsed.short_description or "").partition(". ")[0].rstrip(".")
    plain = {name: re.sub(r":\w+:`~?(?:\w+\.)*(\w+)`", r"\1", text) for name, text in texts.items()}
    for python, words in (
        ("None: ", "Default: "),
        ("; if None,", "; by default"),
        ("; None ", "; by default it "),
    ):
        plain = {name: text.replace(python, words) for name, text in plain.items()}
    return plain


def _make_reader(option: Option) -> Callable[[str], Any]:
    def read(text: str) -> Any:
        try:
            return read_value(text, option.hint)
        except ValueError:
            close = nearest(text, choices(option.hint))
            raise UsageError(f"{option.name} is {text}; give {describe_value(option.hint)}.{close}") from None

    return read


def _help_text(option: Option) -> str:
    default = default_text(option.default)
    text = option.help[:1].upper() + option.help[1:].rstrip(".")
    return (f"{text} (default: {default})" if default else text).replace("%", "%%")
