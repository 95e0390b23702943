"""What BoxCaseg may be set to."""

import re
from dataclasses import asdict

import pytest

from boxel.errors import BoxelError
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


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"heads": []}, "heads is []; name some of weak, salient, transferred, or shared alone."),
        ({"heads": ["shared", "weak"]}, "or shared alone."),
        ({"heads": ["transferred"]}, "heads has transferred, whose weights come from weak; name weak too."),
        ({"heads": ["salient", "transferred"]}, "name weak too."),
        ({"alpha": 1.1}, "alpha is 1.1; give a number from 0 to 1."),
        ({"tau": -0.1}, "tau is -0.1"),
        ({"theta": 0}, "theta is 0"),
        ({"dilation": 0}, "dilation is 0"),
        ({"neck_channels": 0}, "neck_channels is 0"),
        ({"margin": -0.5}, "margin is -0.5"),
        ({"pixel_weight": float("nan")}, "pixel_weight is nan"),
        ({"hint_weight": -1}, "hint_weight is -1"),
        ({"side": 100}, "side is 100; give a multiple of 32."),
        ({"side": 0}, "side is 0; give a multiple of 32."),
    ],
)
def test_settings_that_mean_nothing(setting, message):
    with pytest.raises(BoxelError, match=re.escape(message)):
        BoxCasegConfig(**setting)


def test_a_config_is_plain_data():
    config = BoxCasegConfig(heads=["shared"], alpha=0.3, box_channel=True)
    assert BoxCasegConfig(**asdict(config)) == config
