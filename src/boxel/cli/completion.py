"""Scripts for shell completion, generated from the commands and their flags."""

from __future__ import annotations

from boxel.cli.main import COMMANDS, build_parser
from boxel.cli.options import Option
from boxel.methods import METHODS
from boxel.utils.errors import UsageError

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


def completion_script(shell: str = "") -> str:
    """Return the script that completes the commands, methods and flags of boxel in one of `SHELLS`.

    Examples:
        >>> "--drop" in completion_script("bash")
        True
    """
    if shell not in SHELLS:
        raise UsageError(f"--print-completion needs the name of a shell: {', '.join(SHELLS)}.")
    options = {name: build_parser(name).options for name in COMMANDS}
    if shell == "fish":
        return _fish_script(options)
    commands = dict.fromkeys(name.split()[0] for name in options)
    words = {"": [*commands, "--help", "--version"], "train": list(METHODS)}
    for name, own in options.items():
        words[name] = [*(flag for option in own for flag in option.spellings), "--help"]
    cases = "\n".join(f'    "{name}") words="{" ".join(known)}" ;;' for name, known in words.items())
    prefix = "autoload -U +X bashcompinit && bashcompinit\n" if shell == "zsh" else ""
    return prefix + BASH.format(cases=cases)


def _fish_script(options: dict[str, list[Option]]) -> str:
    lines = ["complete -c boxel -n __fish_use_subcommand -a train -d 'Train a model.'"]
    for name, own in options.items():
        command, _, method = name.partition(" ")
        condition = "__fish_seen_subcommand_from train" if method else "__fish_use_subcommand"
        help = _quote(COMMANDS[name].help)
        lines.append(f"complete -c boxel -n {condition!r} -a {method or command} -d {help}")
        seen = f"'__fish_seen_subcommand_from {method or command}'"
        for option in own:
            for flag in option.spellings:
                lines.append(f"complete -c boxel -n {seen} -l {flag[2:]} -d {_quote(option.help)}")
    return "\n".join(lines) + "\n"


def _quote(text: str) -> str:
    return "'" + text.split(". ")[0].replace("\\", "\\\\").replace("'", "\\'") + "'"
