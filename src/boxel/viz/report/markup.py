"""Small pieces of HTML. Whatever comes from a file goes through `text`; all else takes HTML and gives it."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from html import escape

MOST = 100
"""Rows that a table or list shows; more are counted."""

_NONE = "\N{EN DASH}"  # stands where there is no figure
_LONGEST = 300  # characters of a text


def text(value: object) -> str:
    """A value as HTML that shows just its text, cut off if it is very long."""
    said = str(value)
    return escape(said if len(said) <= _LONGEST else f"{said[: _LONGEST - 1]}…")


def plural(count: int, noun: str, nouns: str = "") -> str:
    """A count and its noun: ``1 mask``, ``1,200 masks``."""
    return f"{count:,} {noun if count == 1 else nouns or noun + 's'}"


def share(part: int, whole: int) -> str:
    """A share in percent; a dash where there is nothing to take it of."""
    if not whole:
        return _NONE
    percent = 100 * part / whole
    figure = "&lt;0.1" if 0 < percent < 0.05 else f"{percent:.1f}".removesuffix(".0")
    return f"{figure}\N{NO-BREAK SPACE}%"


def bar(value: float) -> str:
    """A number in [0, 1] beside a bar of that length; a dash for NaN."""
    if math.isnan(value):
        return _NONE
    return f'<span class="bar"><i style="width:{100 * value:.1f}%"></i></span>{value:.2f}'


def table(head: Sequence[str], rows: Sequence[Sequence[str]], numeric: bool = False, total: int = 0) -> str:
    """A table; empty where it has no rows.

    Args:
        head: titles of the columns.
        rows: a cell for each column; those beyond `MOST` are left out.
        numeric: all columns but the first are figures.
        total: of how many rows these are the first, where there are more.
    """
    if not rows:
        return ""
    kind = "numeric" if numeric else "words"
    body = "".join(_row("td", row) for row in rows[:MOST])
    lines = f"<thead>{_row('th', head)}</thead><tbody>{body}</tbody>"
    left_out = _left_out(max(total, len(rows)))
    return f'<div class="scroll"><table class="{kind}">{lines}</table></div>{left_out}'


def listing(items: Sequence[object]) -> str:
    """A list of texts, those beyond `MOST` left out; empty where there are none."""
    lines = "".join(f"<li>{text(item)}</li>" for item in items[:MOST])
    return f'<div class="scroll"><ul>{lines}</ul></div>{_left_out(len(items))}' if lines else ""


def tiles(figures: Mapping[str, str]) -> str:
    """Figures with their names below."""
    cells = "".join(f"<div><dt>{name}</dt><dd>{figure}</dd></div>" for name, figure in figures.items())
    return f'<dl class="tiles">{cells}</dl>'


def pair(left: str, right: str) -> str:
    """Two things side by side where there is room."""
    return f'<div class="pair"><div>{left}</div><div>{right}</div></div>'


def document(title: str, style: str, header: str, sections: Mapping[str, str]) -> str:
    """A whole page.

    Args:
        title: of the window.
        style: CSS.
        header: what stands above all.
        sections: content by title; those without any are left out, the others are linked to below the header.
    """
    filled = {name: content for name, content in sections.items() if content}
    ids = {name: name.lower().replace(" ", "-") for name in filled}
    links = " ".join(f'<a href="#{ids[name]}">{name}</a>' for name in filled)
    parts = "\n".join(
        f'<section id="{ids[name]}"><h2>{name}</h2>\n{content}\n</section>'
        for name, content in filled.items()
    )
    # Were anything of a file to slip through as HTML, a browser would still neither run nor fetch it.
    policy = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{title}</title>\n<style>\n{style}</style>\n</head>\n<body>\n"
        f"<header>{header}\n<nav>{links}</nav></header>\n<main>\n{parts}\n</main>\n</body>\n</html>\n"
    )


def _row(cell: str, cells: Iterable[str]) -> str:
    return f"<tr>{''.join(f'<{cell}>{one}</{cell}>' for one in cells)}</tr>"


def _left_out(count: int) -> str:
    return f'<p class="more">and {count - MOST:,} more</p>' if count > MOST else ""
