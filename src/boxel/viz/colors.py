"""Colors that people can tell apart, also on photographs and with a color-vision deficiency."""

from __future__ import annotations

from typing import TypeAlias

Color: TypeAlias = tuple[int, int, int]
"""RGB, each 0..255."""

BLACK, WHITE = (0, 0, 0), (255, 255, 255)

# Purple, blue and red were chosen by hand, the others among colors that are neither dark, pale nor gray: the first 20
# for the largest minimum of CIEDE2000 between two of them, as seen with normal vision, protanopia, deuteranopia and
# tritanopia (matrices of Machado et al. 2009); then, greedily, the color that is farthest from all before. They are
# ordered so that colors one or two numbers apart, which adjacent classes have, differ most.
_HEX = (
    "b41ed2 40b0ff 00af69 46e6ff eb4628 cd698c afff8c ff8c23 468cff 8c468c ff6969 8cffcd "
    "238c00 e646cd ffaf8c af4646 ff8ccd cde623 cd2369 46cdaf e646ff af6946 69e669 238ccd "
    "af4669 46cd46 8c00e6 46cdff ff8c8c af46e6 69e6cd ff0046 4669cd e6e669 cd8ccd 46af46 "
    "af2369 00ffe6 8c8c23 af69af 00e68c cd2346 e6af00 e600ff 69ffff ff698c afff46 cd00af "
    "cd8c46 cd8ce6 238c69 af00af 23e646 ff69af 8c8c46 23cde6 af238c e6cd69 cd8cff 2369af "
    "ff8caf 238c46 698ce6 e6af69 e646af af4600 69cd69 ffafe6 4646ff cdcd23 ff468c 466900 "
    "23cdcd ff4669 6969e6 afe68c cd468c af8c00 00e6af ff8ce6 8caf00 af468c 696923 46cd8c "
    "e600cd cd2300 46af8c cd69e6 cdaf46 cd4669 2369ff 23ffaf e669af 8caf69 8c46e6 e60023"
)
PALETTE: tuple[Color, ...] = tuple(tuple(bytes.fromhex(code)) for code in _HEX.split())  # type: ignore[misc]
"""96 colors; the first ones differ most."""


def pick_color(index: int) -> Color:
    """Return the color of a class or an instance by its number; they repeat after 96.

    Examples:
        >>> pick_color(0), pick_color(96) == pick_color(0)
        ((180, 30, 210), True)
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
