"""What the arguments of `boxel.train` come to, before any data is read."""

from pathlib import Path

import pytest
import yaml

from boxel.models.boxinst import BoxInstConfig
from boxel.models.mask_rcnn import MaskRCNNConfig
from boxel.training.settings import resolve_run
from boxel.utils.errors import BoxelError, UsageError


def resolve(method, init=None, **settings):
    return resolve_run(method, None, init, None, settings)


def test_short_names_are_settings_of_the_data():
    data = resolve("boxinst", categories=["a"], min_box=4, class_list=Path("names.txt")).settings.data
    assert (data.categories, data.min_box, data.class_list) == (["a"], 4, "names.txt")


def test_the_run_folder_is_named_after_the_method_by_default():
    run = resolve("mask-rcnn", epochs=3)
    assert run.out == Path("runs", "mask-rcnn") and run.record["epochs"] == 3
    assert run.record["method"] == "mask-rcnn" and not run.segmenter


def test_boxsup_chooses_among_segments_by_default():
    run = resolve("boxsup")
    assert run.settings.label == "segments" and run.settings.teacher is None and run.segmenter
    assert resolve("boxsup", label="boxcaseg").settings.teacher == "boxcaseg"


def test_inputs_are_separated_from_settings():
    run = resolve("boxcaseg", salient="objects", batch_size=2)
    assert run.inputs == {"salient": "objects"} and run.settings.batch_size == 2
    assert resolve("boxinst", salient=None).inputs == {}


def test_inputs_of_another_method_are_refused():
    with pytest.raises(UsageError, match="boxinst does not use `salient`; leave it out"):
        resolve("boxinst", salient="objects")
    with pytest.raises(UsageError, match=r"fcrn-instances needs a run of fcrn .*; name it with `semantic`"):
        resolve("fcrn-instances")
    with pytest.raises(UsageError, match="fcrn has no candidate segments"):
        resolve("fcrn", label="segments")


def test_without_a_recipe_the_settings_of_the_run_to_start_from_are_taken():
    assert resolve("boxcaseg", init="boxcaseg").settings.model.side == 192
    for method, config in (("boxinst", BoxInstConfig), ("mask-rcnn", MaskRCNNConfig)):
        model = resolve(method, init="boxcaseg").settings.model
        assert model == config(backbone="tf_efficientnet_lite2")


def test_a_recipe_names_what_it_starts_from_unless_the_user_does():
    small = {"config": "boxinst-small", "out": None}
    run = resolve_run("boxinst", init=None, settings={}, **small)
    assert run.init == "boxinst" and run.settings.model.neck_channels == 96
    assert resolve_run("boxinst", init="boxcaseg", settings={}, **small).init == "boxcaseg"
    for network in ({"model.backbone": "tf_efficientnet_lite2"}, {"model": {"weights": "none"}}):
        assert resolve_run("boxinst", init=None, settings=network, **small).init is None
    assert resolve_run("boxinst", init="tf_efficientnet_lite0", settings={}, **small).init is None
    assert resolve_run("boxinst", "coco-small", None, None, {}).init is None


def test_the_settings_of_a_run_repeat_its_start(tmp_path):
    for init, started in ((None, "boxinst"), ("boxcaseg", "boxcaseg")):
        run = resolve_run("boxinst", "boxinst-small", init, None, {})
        (tmp_path / "config.yaml").write_text(yaml.safe_dump(run.record))
        assert resolve_run("boxinst", tmp_path / "config.yaml", None, None, {}).init == started


def test_the_network_to_start_from_takes_the_other_settings_of_a_small_recipe():
    run = resolve_run("boxinst", None, "fcos_resnet50_fpn", None, {}, small="boxinst-small")
    assert run.settings.model == BoxInstConfig(backbone="resnet50.tv_in1k", level_scale=1.0)
    assert (run.recipe, run.settings.optim.name) == ("boxinst-small", "adamw")


def test_of_another_detector_the_backbone_alone_is_taken(tmp_path):
    model = {"backbone": "resnet10t", "neck": "bifpn"}
    (tmp_path / "config.yaml").write_text(yaml.safe_dump({"method": "boxinst", "model": model}))
    assert resolve("mask-rcnn", init=tmp_path).settings.model == MaskRCNNConfig(backbone="resnet10t")
    assert resolve("boxinst", init=tmp_path).settings.model == BoxInstConfig(**model)


def test_wrong_settings_name_the_right_ones():
    with pytest.raises(BoxelError, match=r"no setting 'epoch'.*Did you mean 'epochs'"):
        resolve("boxinst", epoch=3)
    with pytest.raises(UsageError, match=r"no method 'boxints'.*Did you mean 'boxinst'"):
        resolve("boxints")
