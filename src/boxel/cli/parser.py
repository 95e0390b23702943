"""The parser of one command: flags from settings, help, and errors in one sentence."""

from __future__ import annotations

import re
from argparse import SUPPRESS, BooleanOptionalAction, RawDescriptionHelpFormatter
from collections.abc import Sequence
from dataclasses import MISSING, dataclass, fields, is_dataclass
from pathlib import Path
from typing import Any, get_type_hints

from docstring_parser import parse as parse_docstring
from jsonargparse import ArgumentParser, Namespace

from boxel.cli.values import default_metavar, default_text, describe_value, make_reader, plain_type, suggest
from boxel.utils.errors import BoxelError, UsageError, nearest


@dataclass(frozen=True)
class Option:
    """A positional argument or a flag.

    Attributes:
        dest: Name of the setting, with dots for those of a section.
        flags: The flag and its longer spellings; empty for a positional argument.
        hint: Type of the value.
        help: What it does, in one or two sentences.
        default: Value if it is not given; None if there is none.
        group: Title of its group in the help, or None.
        hidden: Whether only `--help-all` shows it.
        several: Whether it takes several values with spaces between them.
        metavar: What stands for its value in the help.
    """

    dest: str
    flags: tuple[str, ...]
    hint: Any
    help: str
    default: Any = None
    group: str | None = None
    hidden: bool = False
    several: bool = False
    metavar: str = ""

    @property
    def spellings(self) -> tuple[str, ...]:
        """All flags, with the one that turns a switch off."""
        return (*self.flags, f"--no-{self.flags[0][2:]}") if self.is_switch else self.flags

    @property
    def is_switch(self) -> bool:
        """Whether it takes no value."""
        return plain_type(self.hint) is bool


class Parser(ArgumentParser):
    """Parse the words after the name of a command.

    Args:
        name: The command, e.g. `train boxinst`.
        description: What it does, in one sentence.
        example: A command line, shown below the flags.
        show_all: Whether the help shows every setting.
    """

    def __init__(self, name: str, description: str = "", example: str = "", show_all: bool = False):
        super().__init__(
            prog=f"boxel {name}",
            description=description,
            epilog=f"example: {example}",
            formatter_class=RawDescriptionHelpFormatter,
            exit_on_error=False,
            allow_abbrev=False,
            add_help=False,
        )
        self.options: list[Option] = []
        self._show_all = show_all
        self._sections: dict[str | None, Any] = {None: self}
        self._spellings: dict[str, str] = {}
        self._words: list[str] = []

    def add_positional(self, name: str, help: str, *, hint: Any = str, several: bool = False) -> None:
        """Add an argument that must be given."""
        self.options.append(Option(name, (), hint, help, several=several))
        self.add_argument(name, type=hint, help=help, nargs="+" if several else None)

    def add_flag(
        self,
        name: str,
        hint: Any,
        help: str,
        *,
        default: Any = None,
        aliases: Sequence[str] = (),
        group: str | None = None,
        hidden: bool = False,
        metavar: str | None = None,
        several: bool = False,
    ) -> None:
        """Add a flag for a setting, or for `several` values with spaces between them.

        The name of a setting of a section has a dot; if it has a shorter alias, the help shows only that.
        """
        flags = tuple("--" + flag.replace("_", "-") for flag in (*aliases, name))
        metavar = metavar or default_metavar(hint)
        option = Option(name, flags, hint, help, default, group, hidden, several, metavar)
        self.options.append(option)
        self._spellings |= {flag: flags[0] for flag in flags[1:]}
        if group not in self._sections:
            self._sections[group] = self.add_argument_group(group)
        shown = SUPPRESS if hidden and not self._show_all else _help_text(option)
        how = {"dest": name, "help": shown, "default": SUPPRESS}
        if option.is_switch:
            self._sections[group].add_argument(flags[0], action=BooleanOptionalAction, **how)
        else:
            how |= {"metavar": metavar, "type": make_reader(hint)}
            how |= {"nargs": "+"} if several else {}
            self._sections[group].add_argument(flags[0], **how)

    def add_settings(
        self,
        kind: type,
        *,
        prefix: str = "",
        only: Sequence[str] | None = None,
        skip: Sequence[str] = (),
        daily: Sequence[str] | None = None,
        aliases: dict[str, str] | None = None,
        defaults: Any = None,
    ) -> None:
        """Add a flag for each field of a settings dataclass and of those within it, with the help of its docstring.

        Args:
            kind: The dataclass.
            prefix: Path of its section, with a dot at the end.
            only: Names of the fields to add; None adds all.
            skip: Names of fields to leave out.
            daily: Names of the fields that the short help shows; None shows all.
            aliases: Paths of settings by their short names.
            defaults: An instance whose values are shown as defaults; None for the dataclass's own.
        """
        hints, texts = get_type_hints(kind), _attribute_texts(kind)
        short = {path: name for name, path in (aliases or {}).items()}
        group = texts[""] if prefix else None
        for field in fields(kind):
            name, hint = field.name, hints[field.name]
            path = prefix + name
            if name in skip or (only is not None and name not in only):
                continue
            default = _default(field) if defaults is None else getattr(defaults, name)
            if is_dataclass(hint):
                self.add_settings(hint, prefix=f"{path}.", daily=daily, aliases=aliases, defaults=default)  # type: ignore[arg-type]
                continue
            self.add_flag(
                path,
                hint,
                texts.get(name, ""),
                default=default,
                aliases=[short[path]] if path in short else [],
                group=None if path in short else group and f"{prefix[:-1]}: {group}",
                hidden=daily is not None and path not in daily and short.get(path) not in daily,
            )

    def parse(self, words: Sequence[str]) -> Namespace:
        """Parse the words of a command line; only settings that were given are in the result.

        Raises:
            UsageError: A word is unknown, or a value is missing or wrong.
            BoxelError: A file or folder to read is not there.
        """
        self._words = [self._spell(word) for word in words]
        return self.parse_args(self._words, defaults=False)

    def require_files(self, given: Namespace, *names: str) -> None:
        """Raise a :class:`BoxelError` unless the files and folders that these arguments name are there."""
        for name in names:
            value = given.get(name) or []
            for path in [value] if isinstance(value, str) else value:
                if not Path(path).exists():
                    raise BoxelError(f"{path}: there is no such file or folder.")

    def with_flags(self, text: str) -> str:
        """Return a message of the library in which names of settings are flags of this command."""
        names = {option.dest: option.flags[0] for option in self.options if option.flags}
        names |= {option.dest: option.dest.upper() for option in self.options if not option.flags}
        return re.sub(r"`([a-z_.]+)`", lambda match: names.get(match[1], match[0]), text)

    def error(self, message: str, ex: Exception | None = None) -> Any:  # type: ignore[override]
        """Raise a :class:`UsageError` that states in one sentence what is wrong."""
        raise UsageError(self._explain(" ".join(message.split()))) from ex

    def usage_line(self) -> str:
        """Return what must be given; of all the flags, none is."""
        words = [o.dest.upper() + " ..." * o.several for o in self.options if not o.flags]
        return " ".join([self.prog, *words, "[flags]"])

    def help_text(self) -> str:
        """Return the help: usage, flags that are shown, and an example."""
        self.usage = self.usage_line()
        hidden = sum(option.hidden for option in self.options)
        more = f"\n{hidden} more settings: {self.prog} --help-all\n" if hidden and not self._show_all else ""
        return self.format_help() + more

    def _explain(self, message: str) -> str:
        if found := re.match(r'Parser key "([^"]+)":', message):
            return self._explain_value(found[1], message.rpartition("Got value: ")[2])
        if found := re.match(r"argument (--[^\s:/]+)\S*: (.*)", message):
            option = self._option(found[1])
            if "expected" in found[2]:
                what = "" if plain_type(option.hint) is str else f": {describe_value(option.hint)}"
                return f"{found[1]} needs a value{what}."
            if "explicit argument" in found[2]:
                return f"{found[1]} takes no value; write {found[1]} or --no-{found[1][2:]}."
            return self._explain_value(option.dest)
        if found := re.match(r"the following arguments are required: (.*)", message):
            missing = found[1].split(", ")[0]
            text = next((o.help for o in self.options if o.dest == missing), "")
            return f"{self.prog} needs {missing.upper()}: {text}."
        if found := re.match(r"unrecognized arguments: (\S+)", message):
            flag = found[1].partition("=")[0]
            if not flag.startswith("-"):
                return f"{self.prog} has no use for {found[1]!r}; leave it out (usage: {self.usage_line()})."
            known = [flag for option in self.options for flag in option.spellings]
            return f"{self.prog} has no flag {flag!r}.{nearest(flag, known)}"
        return f"{message} ({self.prog} --help lists the flags)."

    def _explain_value(self, dest: str, value: str = "") -> str:
        option = next(option for option in self.options if f"{dest}.".startswith(f"{option.dest}."))
        spelling = option.flags[0] if option.flags else option.dest.upper()
        for word, after in zip(self._words, [*self._words[1:], ""], strict=True):
            flag, equals, text = word.partition("=")
            if flag == spelling:
                value = text if equals else after
        return f"{spelling} is {value}; give {describe_value(option.hint)}.{suggest(value, option.hint)}"

    def _spell(self, word: str) -> str:
        """Return a flag in its first spelling; underscores are taken for hyphens."""
        flag, equals, value = word.partition("=")
        if not word.startswith("--"):
            return word
        flag = flag.replace("_", "-")
        return self._spellings.get(flag, flag) + equals + value

    def _option(self, flag: str) -> Option:
        return next(option for option in self.options if flag in option.flags)


def _attribute_texts(kind: type) -> dict[str, str]:
    """Return the description of each field from the docstrings of a dataclass and its bases; "" is the class's own."""
    texts: dict[str, str] = {}
    for base in reversed(kind.__mro__):
        if is_dataclass(base):
            parsed = parse_docstring(base.__doc__ or "")
            texts |= {entry.arg_name: " ".join((entry.description or "").split()) for entry in parsed.params}
            texts[""] = (parsed.short_description or "").partition(". ")[0].rstrip(".")
    return {name: re.sub(r":\w+:`~?(?:\w+\.)*(\w+)`", r"\1", text) for name, text in texts.items()}


def _default(field: Any) -> Any:
    return field.default_factory() if field.default is MISSING else field.default


def _help_text(option: Option) -> str:
    default = default_text(option.default)
    text = option.help[:1].upper() + option.help[1:].rstrip(".")
    text = text.replace("None: ", "Default: ").replace("; if None,", "; by default")
    return f"{text} (default: {default})".replace("%", "%%") if default else text.replace("%", "%%")
