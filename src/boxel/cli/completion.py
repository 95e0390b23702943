"""Scripts for shell completion, generated from the commands and their flags."""

from __future__ import annotations

from collections.abc import Mapping

BASH = """\
_boxel() {{
  local current="${{COMP_WORDS[COMP_CWORD]}}" command="${{COMP_WORDS[1]}}" words=""
  if [ "$command" = train ] && [ "$COMP_CWORD" -gt 2 ]; then command="train ${{COMP_WORDS[2]}}"; fi
  if [ "$COMP_CWORD" -eq 1 ]; then command=""; fi
  case "$command" in
{cases}
  esac
  COMPREPLY=()
  if [ "$COMP_CWORD" -eq 1 ] || [ "$command" = train ] || [[ "$current" == -* ]]; then
    COMPREPLY=($(compgen -W "$words" -- "$current"))
  fi
}}
complete -o default -F _boxel boxel
"""

SHELLS = ("bash", "zsh", "fish")


def completion_script(
    shell: str, flags: Mapping[str, list[tuple[str, str]]], helps: Mapping[str, str]
) -> str:
    """Return the script that completes the commands, methods and flags of boxel in a shell.

    Args:
        shell: One of `SHELLS`.
        flags: The flags of each command and their help, by the name of the command.
        helps: The help of each command.

    Examples:
        >>> "--drop" in completion_script("bash", {"label": [("--drop", "Minimum IoU")]}, {"label": "Label."})
        True
    """
    methods = [name.split()[1] for name in flags if name.startswith("train ")]
    commands = list(dict.fromkeys(name.split()[0] for name in flags))
    if shell == "fish":
        return _fish_script(flags, helps)
    words = {"": [*commands, "--help", "--version"], "train": methods}
    words |= {name: [flag for flag, _ in [*own, ("--help", "")]] for name, own in flags.items()}
    cases = "\n".join(f'    "{name}") words="{" ".join(known)}" ;;' for name, known in words.items())
    prefix = "autoload -U +X bashcompinit && bashcompinit\n" if shell == "zsh" else ""
    return prefix + BASH.format(cases=cases)


def _fish_script(flags: Mapping[str, list[tuple[str, str]]], helps: Mapping[str, str]) -> str:
    lines = []
    for name, own in flags.items():
        command, _, method = name.partition(" ")
        condition = "__fish_seen_subcommand_from train" if method else "__fish_use_subcommand"
        lines.append(f"complete -c boxel -n {condition!r} -a {method or command} -d {_quote(helps[name])}")
        for flag, help in own:
            seen = f"'__fish_seen_subcommand_from {method or command}'"
            lines.append(f"complete -c boxel -n {seen} -l {flag.lstrip('-')} -d {_quote(help)}")
    if any(name.startswith("train ") for name in flags):
        lines.append("complete -c boxel -n __fish_use_subcommand -a train -d 'Train a model.'")
    return "\n".join(lines) + "\n"


def _quote(text: str) -> str:
    return "'" + text.split(". ")[0].replace("\\", "\\\\").replace("'", "\\'") + "'"
