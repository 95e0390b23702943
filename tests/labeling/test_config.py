"""Settings of labeling."""

import pytest

from boxel.labeling.config import LabelConfig, parse_label_config
from boxel.utils.errors import BoxelError


def test_changes_take_precedence():
    assert parse_label_config() == LabelConfig()
    assert parse_label_config({"drop": 0.5, "box_slack": 0.1}, drop=0.7) == LabelConfig(
        drop=0.7, box_slack=0.1
    )
    given = LabelConfig(teachers=["ellipse"], drop=0.5)
    assert parse_label_config(given, merge="none") == LabelConfig(
        teachers=["ellipse"], drop=0.5, merge="none"
    )


def test_an_unknown_name_is_refused_with_the_nearest():
    with pytest.raises(BoxelError, match=r"no setting 'min_components'.* Did you mean 'min_component'\?"):
        parse_label_config(min_components=0.1)


@pytest.mark.parametrize(
    "wrong",
    [
        {"box_slack": -0.1},
        {"box_slack": 0.5},
        {"min_component": 2},
        {"drop": -1},
        {"workers": 0},
        {"teachers": []},
        {"flip": "perhaps"},
    ],
)
def test_an_invalid_value_is_refused_by_name(wrong):
    with pytest.raises(BoxelError, match=next(iter(wrong))):
        parse_label_config(wrong)
