"""The flags of each command as Markdown, for the reference pages of the documentation."""

from __future__ import annotations

from boxel.cli.main import COMMANDS, build_parser
from boxel.cli.options import Option
from boxel.cli.train import TRAIN
from boxel.cli.values import default_metavar, default_text, describe_value, plain_type


def commands_markdown() -> str:
    """Return the page of all commands and their flags.

    Examples:
        >>> commands_markdown().splitlines()[0]
        '# Commands'
    """
    text = (
        "# Commands\n\n`boxel COMMAND --help` lists the flags of a command. `--debug` shows the traceback\n"
        "of an error, and `boxel --print-completion bash` (or `zsh`, `fish`) prints completions for a shell\n"
        "to source. The exit code is 0 if all is done, 1 if the data or a file is invalid, and 2 for wrong\n"
        "usage.\n\n"
    )
    plain = [options_markdown(name) for name in COMMANDS if name not in TRAIN]
    train = [options_markdown(name, level=3) for name in TRAIN]
    return text + "\n".join([*plain, "## boxel train\n\n`boxel train METHOD` trains a model.\n", *train])


def options_markdown(command: str, level: int = 2) -> str:
    """Return a page section on a command: its help, its usage and example, and tables of its arguments and flags.

    Examples:
        >>> print(options_markdown("draw").splitlines()[0])
        ## boxel draw
    """
    parser = build_parser(command, show_all=True)
    lines = [f"{'#' * level} boxel {command}", "", COMMANDS[command].help, "", "```bash"]
    lines += [f"boxel {command} {COMMANDS[command].example}".rstrip(), "```", ""]
    positional = [option for option in parser.options if option.positional]
    if positional:
        lines += ["| argument | meaning |", "|---|---|"]
        lines += [f"| `{option.name}` | {_cell(option.help)} |" for option in positional] + [""]
    for group in dict.fromkeys(option.group for option in parser.options if option.flags):
        if group:
            lines += [f"{'#' * level}# {group}", ""]
        lines += ["| flag | value | default | meaning |", "|---|---|---|---|"]
        lines += [_row(option) for option in parser.options if option.flags and option.group == group] + [""]
    return "\n".join(lines).rstrip() + "\n"


def _row(option: Option) -> str:
    value = "on or off" if option.is_switch else _cell(describe_value(option.hint))
    value = f"`{option.metavar or default_metavar(option.hint)}`" if plain_type(option.hint) is str else value
    default = default_text(option.default)
    flags = ", ".join(f"`{flag}`" for flag in option.spellings)
    return f"| {flags} | {value} | {f'`{default}`' if default else ''} | {_cell(option.help)} |"


def _cell(text: str) -> str:
    return (text[:1].upper() + text[1:]).replace("|", "\\|").rstrip(".")
