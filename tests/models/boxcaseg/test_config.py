"""What BoxCaseg may be set to."""

from dataclasses import asdict

import pytest

from boxel.models.boxcaseg import BoxCasegConfig


def test_the_defaults_are_the_papers():
    config = BoxCasegConfig()
    assert config.backbone.startswith("hrnet_w48") and config.neck == "concat"
    assert config.heads == ["weak", "salient", "transferred"] and config.alpha == 0.7
    assert (config.side, config.margin, config.box_channel) == (320, 0.0, False)
    weights = {name: value for name, value in asdict(config).items() if name.endswith("_weight")}
    assert {name: value for name, value in weights.items() if value} == {
        "mil_weight": 1.0,
        "smooth_weight": 0.05,
        "pixel_weight": 1.0,
    }


@pytest.mark.parametrize(
    "heads",
    [
        ["weak"],
        ["salient"],
        ["weak", "transferred"],
        ["weak", "salient"],
        ["weak", "salient", "transferred"],
        ["transferred", "weak"],
        ["shared"],
    ],
)
def test_heads_of_table_4_and_one_for_all(heads):
    assert BoxCasegConfig(heads=heads).heads == heads
