"""Settings of all models: plain data whose values are checked."""

import re
from dataclasses import asdict

import pytest

from boxel.models.boxcaseg import BoxCasegConfig
from boxel.models.boxinst import BoxInstConfig
from boxel.models.mask_rcnn import MaskRCNNConfig
from boxel.utils.errors import BoxelError

REFUSED = {
    BoxCasegConfig: [
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
    BoxInstConfig: [
        ({"patch_size": 4}, "patch_size is 4; give 3 or 5."),
        ({"mask_features": 0}, "mask_features is 0; give a whole number above 0."),
        ({"tau": 1.5}, "tau is 1.5; give a number from 0 to 1."),
        ({"max_instances": 0}, "max_instances is 0; give a whole number above 0."),
        ({"max_detections": -1}, "max_detections is -1"),
        ({"affinity_weight": -1.0}, "affinity_weight is -1.0"),
        ({"affinity_weight": float("nan")}, "affinity_weight is nan"),
        ({"mask_width": 0}, "mask_width is 0"),
    ],
    MaskRCNNConfig: [
        ({"level_scale": 0.0}, "level_scale is 0.0; give a number above 0."),
        ({"box_samples": 3}, "box_samples is 3; give a number from 4 up."),
        ({"proposals": 0}, "proposals is 0"),
    ],
}


@pytest.mark.parametrize(
    ("kind", "setting", "message"), [(kind, *case) for kind, cases in REFUSED.items() for case in cases]
)
def test_settings_out_of_range_are_refused(kind, setting, message):
    with pytest.raises(BoxelError, match=re.escape(message)):
        kind(**setting)


@pytest.mark.parametrize(
    "config",
    [
        BoxCasegConfig(heads=["shared"], alpha=0.3, box_channel=True),
        BoxInstConfig(backbone="resnet10t", head_convs=1, mask_convs=1),
        MaskRCNNConfig(backbone="resnet10t", level_scale=0.5),
    ],
)
def test_a_config_is_plain_data(config):
    assert type(config)(**asdict(config)) == config
