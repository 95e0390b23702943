"""Settings whose types state the range of each number."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

import pytest
import yaml

from boxel.utils.config import (
    ClosedUnitInterval,
    Config,
    NonNegativeFloat,
    PositiveInt,
    parse_config,
)
from boxel.utils.errors import BoxelError


@dataclass
class Inner(Config):
    """Nested settings.

    Attributes:
        side: Pixels.
    """

    side: PositiveInt = 8


@dataclass
class Settings(Config):
    """Settings.

    Attributes:
        share: A share.
        limit: A limit, or None.
        steps: Several numbers.
        pair: Two numbers.
        kind: A choice.
        inner: Nested settings.
    """

    share: ClosedUnitInterval = 0.5
    limit: NonNegativeFloat | None = None
    steps: list[PositiveInt] = field(default_factory=lambda: [1, 2])
    pair: tuple[NonNegativeFloat, NonNegativeFloat] = (0, 1)
    kind: Literal["a", "b"] = "a"
    inner: Inner = field(default_factory=Inner)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"share": 1.5}, "share is 1.5; give a number from 0 to 1."),
        ({"share": float("nan")}, "share is nan; give a number from 0 to 1."),
        ({"limit": -1}, "limit is -1; give a number from 0 up."),
        ({"steps": [3, 0]}, "steps is 0; give a whole number above 0."),
    ],
)
def test_a_number_out_of_range_is_refused_in_python(values, message) -> None:
    with pytest.raises(BoxelError) as error:
        Settings(**values)
    assert str(error.value) == message


def test_parsed_numbers_are_plain_and_can_be_written_as_yaml() -> None:
    settings = parse_config(Settings, {"share": 1, "steps": [4], "inner": {"side": 3}})
    assert settings == Settings(share=1.0, steps=[4], inner=Inner(3))
    assert [type(value) for value in (settings.share, settings.steps[0], settings.inner.side)] == [
        float,
        int,
        int,
    ]
    assert yaml.safe_load(yaml.safe_dump(vars(settings.inner))) == {"side": 3}


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"shair": 1}, "there is no setting 'shair'. Did you mean 'share'?"),
        ({"inner": {"sides": 1}}, "there is no setting 'inner.sides'. Did you mean 'inner.side'?"),
        ({"share": "much"}, "share is much; give a number from 0 to 1."),
        ({"limit": -1}, "limit is -1; give a number from 0 up."),
        ({"steps": [3, 0]}, "steps is [3, 0]; give a list whose items are each a whole number above 0."),
        ({"steps": 3}, "steps is 3; give a list whose items are each a whole number above 0."),
        ({"pair": [1]}, "pair is [1]; give a list of 2 items, each a number from 0 up."),
        ({"kind": "c"}, "kind is c; give a or b."),
        ({"inner": {"side": 0}}, "inner.side is 0; give a whole number above 0."),
        ({"inner": None}, "inner is empty; give a mapping of settings, or remove it."),
        ({"share": None}, "share is empty; give a number from 0 to 1, or remove it."),
        ({"limit": True}, "limit is True; give a number from 0 up."),
        ({"limit": float("inf")}, "limit is inf; give a number from 0 up."),
    ],
)
def test_parse_config_names_what_is_wrong(values, message) -> None:
    with pytest.raises(BoxelError, match="the settings: ") as error:
        parse_config(Settings, values)
    assert str(error.value) == f"the settings: {message}"


def test_unknown_settings_are_named_at_any_depth() -> None:
    @dataclass
    class Outer(Config):
        """Settings with nested settings of nested settings.

        Attributes:
            settings: Nested settings.
            free: A mapping with keys of any name.
        """

        settings: Settings = field(default_factory=Settings)
        free: dict[str, dict[str, float]] = field(default_factory=dict)

    parse_config(Outer, {"settings": {"inner": {"side": 2}}, "free": {"any": {"name": 1.0}}})
    for values, message in [
        (
            {"settings": {"inner": {"sides": 1}}},
            "there is no setting 'settings.inner.sides'. Did you mean 'settings.inner.side'?",
        ),
        (
            {"settings": {"iner": {"side": 1}}},
            "there is no setting 'settings.iner'. Did you mean 'settings.inner'?",
        ),
    ]:
        with pytest.raises(BoxelError) as error:
            parse_config(Outer, values)
        assert str(error.value) == f"the settings: {message}"
