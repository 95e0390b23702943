"""Settings of labeling, from every side they may come from."""

import pytest

from boxel.labeling.config import LabelConfig, label_config
from boxel.utils.errors import BoxelError


def test_changes_win_over_what_is_given():
    assert label_config() == LabelConfig()
    assert label_config({"drop": 0.5, "margin": 0.1}, drop=0.7) == LabelConfig(drop=0.7, margin=0.1)
    given = LabelConfig(teachers=["ellipse"], reliability={"ellipse": {"cat": 0.5}})
    assert label_config(given, merge="none") == LabelConfig(
        teachers=["ellipse"], reliability={"ellipse": {"cat": 0.5}}, merge="none"
    )


def test_a_wrong_name_is_told_with_the_nearest():
    with pytest.raises(BoxelError, match=r"no setting 'min_islands'.* Did you mean 'min_island'\?"):
        label_config(min_islands=0.1)


@pytest.mark.parametrize(
    "wrong",
    [
        {"margin": -0.1},
        {"margin": 1.5},
        {"box_slack": 0.5},
        {"min_island": 2},
        {"drop": -1},
        {"workers": 0},
        {"teachers": []},
        {"flip": "perhaps"},
        {"reliability": {"ellipse": {"cat": -1.0}}},
    ],
)
def test_a_value_that_makes_no_sense_is_told_by_name(wrong):
    with pytest.raises(BoxelError, match=next(iter(wrong))):
        label_config(wrong)
