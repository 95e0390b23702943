"""Render the templates of this package into one HTML file that needs nothing else."""

from __future__ import annotations

import hashlib
import math
import os
from base64 import b64encode
from collections.abc import Mapping, Sequence
from datetime import date
from importlib.resources import files
from typing import Any, NamedTuple

import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined
from numpy.typing import NDArray

from boxel import __version__
from boxel.utils.printable import printable
from boxel.viz.names import describe_measure
from boxel.viz.output import encode_image, writing_file

MAX_ROWS = 100  # of a table or list; more are counted
_MAX_CHARACTERS = 300  # of a text
_DASH = "\N{EN DASH}"  # stands for an undefined number


class Section(NamedTuple):
    """A part of a page: its heading, and the macro of a template that makes it."""

    heading: str
    template: str
    macro: str

    @property
    def id(self) -> str:
        """The anchor of the section."""
        return self.heading.lower().replace(" ", "-")


def write_page(
    path: str | os.PathLike[str],
    title: str,
    name: str,
    sections: Sequence[Section],
    tiles: Mapping[str, object],
    context: Mapping[str, Any],
    lead: Sequence[str] = (),
    command: str = "",
) -> None:
    """Write a page.

    Args:
        path: The file to write.
        title: What kind of page it is.
        name: What it is about.
        sections: Its sections in order.
        tiles: The numbers at the top, by name; None for an undefined one.
        context: What the templates of the sections show.
        lead: Sentences at the top.
        command: The command line that made what the page is about.

    Raises:
        BoxelError: The file cannot be written.
    """
    frame = {"title": title, "name": name, "sections": sections, "lead": lead, "command": command}
    shown = {label: _format_tile(value) for label, value in tiles.items()}
    about = {"tiles": shown, "date": date.today(), "version": __version__}
    style, script = (
        files("boxel.viz.report").joinpath(file).read_text(encoding="utf-8")
        for file in ("report.css", "report.js")
    )
    digest = b64encode(hashlib.sha256(script.encode()).digest()).decode()
    page = _environment().get_template("base.html.j2")
    text = page.render({**context, **frame, **about}, style=style, script=script, digest=f"sha256-{digest}")
    with writing_file(path) as file:
        file.write_text(printable(text), encoding="utf-8")  # names may hold control characters


def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("boxel.viz", "report"), autoescape=True, undefined=StrictUndefined
    )
    environment.filters |= {"thousands": "{:,}".format, "short": shorten, "signed": format_signed}
    environment.tests["number_known"] = math.isfinite
    environment.globals |= {
        "share": _format_share,
        "dash": _DASH,
        "limit": MAX_ROWS,
        "describe": describe_measure,
    }
    return environment


def embed(image: NDArray[np.uint8], quality: int = 80) -> str:
    """Return the address of a picture that is in the page itself."""
    return embed_file(encode_image(image, "WEBP", quality=quality, method=2), "webp")


def embed_file(content: bytes, kind: str) -> str:
    """Return the address of an image file that is in the page itself."""
    return f"data:image/{kind};base64,{b64encode(content).decode()}"


def shorten(value: object) -> str:
    """Return a text of at most 300 characters."""
    text = str(value)
    return text if len(text) <= _MAX_CHARACTERS else f"{text[: _MAX_CHARACTERS - 1]}…"


def _format_tile(value: object) -> str:
    if value is None or value != value:
        return _DASH
    if isinstance(value, int):
        return f"{value:,}"
    return f"{value:.3f}" if isinstance(value, float) else str(value)


def format_signed(value: float) -> str:
    """Return a difference with its sign; what rounds to 0 has none.

    Examples:
        >>> format_signed(0.0123), format_signed(-0.0001)
        ('+0.012', '0.000')
    """
    return f"{value:+.3f}" if abs(value) >= 0.0005 else "0.000"


def format_setting(value: object) -> str:
    """Return a setting as people write it."""
    if isinstance(value, list | tuple):
        return ", ".join(map(format_setting, value)) or "none"
    words = {"None": "default", "True": "yes", "False": "no", "": "none"}
    return words.get(str(value), str(value))


def _format_share(part: int, whole: int) -> str:
    """Format a share in [0, 1], or a dash if there is nothing to take it of."""
    if not whole:
        return _DASH
    return "<0.001" if 0 < part / whole < 0.0005 else f"{part / whole:.3f}"
