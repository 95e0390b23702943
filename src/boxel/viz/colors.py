"""Colors that people can tell apart, also on photographs and with a color-vision deficiency."""

from __future__ import annotations

from typing import TypeAlias

Color: TypeAlias = tuple[int, int, int]
"""RGB, each 0..255."""

BLACK, WHITE = (0, 0, 0), (255, 255, 255)

# Eight colors chosen by hand; then, greedily, the color that is farthest from all before in OKLab, as seen with normal
# vision, protanopia and deuteranopia (matrices of Machado et al. 2009), among colors that are neither dark nor pale.
_HEX = (
    "be6ef0 40b0ff 00be78 fae63c eb4628 ff9500 1464e6 ff82be 78ffff b40078 7878b4 00ffa5 "
    "b46978 873cb4 b42d3c b4d269 a5c3ff ffb4d2 e12da5 2d963c ff8778 4bb4b4 4b2dff b487d2 "
    "87d2a5 1ee1e1 69c32d a5ff78 964b5a b400d2 e15a96 b44b87 9669d2 f078f0 ffc32d c3785a "
    "5affd2 d20000 8769ff a5a55a e19696 78e1ff a50f96 e196e1 ffc387 d20069 875a00 00c3a5 "
    "b49600 ff5ad2 e13c69 f000c3 a53c96 d2b45a 87e187 ff3c4b 784bff d2e169 ff2d87 2d9687 "
    "87e12d a5781e 2df0b4 9600c3 c378b4 b44b4b 4b78c3 8787ff ffc3ff f0e196 b45aa5 00e1c3 "
    "785ab4 c396ff e17896 f03ce1 87f0e1 e1a5d2 874b87 a52de1 c31ea5 a5ffc3 c3c378 5a5ad2 "
    "962da5 78782d ff690f 2d96b4 0087e1 4bb4e1 6987c3 781ee1 78a569 96c387 f00096 1ed24b"
)
PALETTE: tuple[Color, ...] = tuple(tuple(bytes.fromhex(code)) for code in _HEX.split())  # type: ignore[misc]
"""96 colors; the first ones differ most."""


def pick_color(index: int) -> Color:
    """Return the color of a class or an instance by its number; they repeat after 96.

    Examples:
        >>> pick_color(0), pick_color(96) == pick_color(0)
        ((190, 110, 240), True)
    """
    return PALETTE[index % len(PALETTE)]


def contrasting(color: Color) -> Color:
    """Return black or white, whichever can be read better on a color.

    References:
        WCAG 2.1, contrast ratio and relative luminance.

    Examples:
        >>> contrasting((255, 255, 0)), contrasting((0, 0, 160))
        ((0, 0, 0), (255, 255, 255))
    """
    linear = [(c / 255 / 12.92 if c <= 10 else ((c / 255 + 0.055) / 1.055) ** 2.4) for c in color]
    luminance = 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
    return BLACK if (luminance + 0.05) ** 2 > 1.05 * 0.05 else WHITE
