"""The error a user is meant to read."""

from math import inf


class BoxelError(Exception):
    """Something the user can mend: one sentence that names the file, the id and the remedy.

    The command line prints it without a traceback and exits with 1.
    """


class UsageError(BoxelError):
    """Something the user typed makes no sense, whatever the data; the command line exits with 2."""


def check_range(settings: object, low: float, high: float, *names: str) -> None:
    """Raise a :class:`BoxelError` unless each named attribute is a number from ``low`` to ``high``."""
    for name in names:
        value = getattr(settings, name)
        if not low <= value <= high:
            upper = "up" if high == inf else f"to {high:g}"
            raise BoxelError(f"{name} is {value}; give a number from {low:g} {upper}.")


def nearest(name: str, known: list[str]) -> str:
    """`" Did you mean 'x'?"` for the known name closest to ``name``, or an empty string."""
    import difflib

    close = difflib.get_close_matches(name, known, n=1)
    return f" Did you mean {close[0]!r}?" if close else ""
