"""The error a user is meant to read."""


class BoxelError(Exception):
    """Something the user can mend: one sentence that names the file, the id and the remedy.

    The command line prints it without a traceback and exits with 1.
    """


def nearest(name: str, known: list[str]) -> str:
    """`" Did you mean 'x'?"` for the known name closest to ``name``, or an empty string."""
    import difflib

    close = difflib.get_close_matches(name, known, n=1)
    return f" Did you mean {close[0]!r}?" if close else ""
