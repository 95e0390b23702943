"""Settings from recipes and flags: what overrides what, and the messages about errors."""

from dataclasses import asdict, replace

import pytest
import yaml

from boxel.cli import main
from boxel.data.synthetic import write_scenes
from boxel.training.config import BoxInstTraining
from boxel.training.recipe import read_config
from boxel.utils.errors import BoxelError


def test_defaults_hold_without_a_recipe():
    assert read_config() == BoxInstTraining()


def test_changes_override_the_recipe_and_the_recipe_the_defaults(tmp_path):
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text("model: {tau: 0.1, area_weight: 3.0}\nepochs: 2\n")
    config = read_config(recipe, **{"model.tau": 0.2, "optim.lr": 0.5})
    assert (config.model.tau, config.model.area_weight, config.epochs, config.optim.lr) == (0.2, 3.0, 2, 0.5)
    assert config.model.backbone == BoxInstTraining().model.backbone


def test_epochs_replace_the_steps_of_what_is_below_and_steps_the_epochs(tmp_path):
    config = read_config("coco-small", epochs=30)
    assert (config.epochs, config.steps) == (30, None)
    assert read_config("coco-small", steps=50, epochs=30).steps == 50
    (tmp_path / "short.yaml").write_text("base: coco-small\nepochs: 2\n")
    assert read_config(tmp_path / "short.yaml").steps is None
    assert read_config(tmp_path / "short.yaml", steps=7).steps == 7


def test_a_mapping_is_not_modified():
    recipe = {"model": {"tau": 0.1}}
    read_config(recipe, **{"model.tau": 0.2, "model.area_weight": 1.0})
    assert recipe == {"model": {"tau": 0.1}}


def test_the_config_of_a_run_folder_is_a_recipe(tmp_path):
    config = read_config(
        None, **{"model.tau": 0.25, "augment.short_sides": [320, 352], "data.categories": ["a"]}
    )
    path = tmp_path / "config.yaml"
    path.write_text(yaml.safe_dump({"method": "boxinst", **asdict(config)}))
    assert read_config(path, "boxinst") == config


def test_a_recipe_for_another_method_is_refused(tmp_path):
    path = tmp_path / "config.yaml"
    path.write_text("method: boxcaseg\n")
    with pytest.raises(BoxelError, match=r"config\.yaml: this is a recipe for 'boxcaseg', not for 'boxinst'"):
        read_config(path, "boxinst")


@pytest.mark.parametrize(
    ("recipe", "message"),
    [
        ({"optim": {"lrr": 1}}, r"no setting 'optim\.lrr'\. Did you mean 'optim\.lr'\?"),
        ({"mdoel": {"tau": 1}}, r"no setting 'mdoel'\. Did you mean 'model'\?"),
        ({"model": {"tau": "high"}}, "tau"),
        ({"optim": {"name": "lion"}}, "lion"),
        ({"model": 5}, "model is 5; give a mapping of settings"),
        ({"batch_size": 0}, "batch_size is 0; give a whole number above 0"),
        ({"validate_every": 0}, "validate_every is 0"),
    ],
)
def test_wrong_settings_are_named(recipe, message):
    with pytest.raises(BoxelError, match=message) as error:
        read_config(recipe)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("content", ["- a\n- b\n", "a: [", ""])
def test_a_file_that_is_not_a_recipe_is_named(tmp_path, content):
    path = tmp_path / "recipe.yaml"
    path.write_text(content)
    with pytest.raises(BoxelError, match=r"recipe\.yaml"):
        read_config(path)
    with pytest.raises(BoxelError, match=r"absent\.yaml"):
        read_config(tmp_path / "absent.yaml")


def test_bundled_recipes_are_read_by_name():
    assert read_config("coco-small").model.backbone == "tf_efficientnet_lite0"
    assert read_config("boxinst/table3-projection").model.affinity_weight == 0
    assert read_config("demo", "boxinst").model.area_weight == 0.15


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("coco_small", "Did you mean 'coco-small'?"),
        ("boxinst", "Did you mean 'boxinst-small'?"),
        ("boxinst/table3", "Did you mean 'boxinst/table3-projection'?"),
        ("boxinst/table3-projektion", "Did you mean 'boxinst/table3-projection'?"),
        ("coco-small/table1", "Did you mean 'coco-small'?"),
        ("", "there is no recipe ''"),
    ],
)
def test_an_unknown_name_gets_the_nearest(name, hint):
    with pytest.raises(BoxelError) as error:
        read_config(name)
    assert hint in str(error.value)


# ---------------------------------------------------------------- a recipe that builds on another


def write_recipes(folder, **texts):
    for name, text in texts.items():
        (folder / f"{name}.yaml").write_text(text)
    return {name: folder / f"{name}.yaml" for name in texts}


def test_a_recipe_overrides_its_base(tmp_path):
    (tmp_path / "below").mkdir()
    (tmp_path / "below" / "first.yaml").write_text(
        "epochs: 3\nmodel: {tau: 0.2, dilation: 1}\naugment: {short_sides: [1, 2]}"
    )
    files = write_recipes(
        tmp_path,
        second="base: below/first.yaml\nmodel: {tau: 0.4, area_weight: 3}\naugment: {short_sides: [3]}",
        third="base: second.yaml\nmodel: {area_weight: 5}",
    )
    config = read_config(files["third"], **{"model.patch_size": 5})
    default = BoxInstTraining()
    assert config == replace(
        default,
        epochs=3,
        model=replace(default.model, tau=0.4, dilation=1, area_weight=5, patch_size=5),
        augment=replace(default.augment, short_sides=[3]),
    )


def test_a_base_may_be_a_bundled_recipe(tmp_path):
    files = write_recipes(tmp_path, mine="base: boxinst/table3-projection\nsteps: 10\n")
    wanted = read_config("boxinst/table3-projection", steps=10)
    assert (
        read_config(files["mine"])
        == read_config({"base": "boxinst/table3-projection", "steps": 10})
        == wanted
    )


@pytest.mark.parametrize("ring", [["a"], ["a", "b"], ["a", "b", "c"]])
def test_recipes_that_build_on_each_other_are_refused(ring, tmp_path):
    files = write_recipes(
        tmp_path, **{name: f"base: {ring[k - len(ring) + 1]}.yaml" for k, name in enumerate(ring)}
    )
    with pytest.raises(BoxelError, match=r"builds on it in turn"):
        read_config(files["a"])


def test_a_missing_base_is_named_with_the_recipe(tmp_path):
    files = write_recipes(tmp_path, a="base: gone.yaml", b="base: coco_small")
    with pytest.raises(BoxelError, match=r"a\.yaml: its base is wrong: .*gone\.yaml"):
        read_config(files["a"])
    with pytest.raises(BoxelError, match=r"b\.yaml: its base is wrong: .* Did you mean 'coco-small'\?"):
        read_config(files["b"])


def test_an_unknown_setting_of_the_base_is_an_error(tmp_path):
    files = write_recipes(tmp_path, a="model: {tua: 0.2}", b="base: a.yaml")
    with pytest.raises(BoxelError, match=r"b\.yaml: there is no setting 'model\.tua'"):
        read_config(files["b"])


def test_all_unknown_settings_and_the_place_of_a_yaml_error_are_named(tmp_path):
    with pytest.raises(
        BoxelError, match=r"no setting 'epoch' or 'step'. Did you mean 'epochs'\? Did you mean"
    ):
        read_config({"epoch": 3, "step": 4})
    (tmp_path / "broken.yaml").write_text("model: {tau: 0.2\nsteps: [")
    with pytest.raises(BoxelError, match="line 2, column") as raised:
        read_config(tmp_path / "broken.yaml")
    assert "unicode string" not in str(raised.value)


def test_an_underscore_of_a_method_is_a_hyphen():
    assert read_config("mask-rcnn-small", "mask_rcnn").steps == 1000
    assert read_config({"method": "mask_rcnn"}, "mask-rcnn").epochs == 12


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("epochs:", "epochs is empty; give a number above 0, or remove it."),
        ("validate_every:", "validate_every is empty; give a number above 0, or remove it."),
        ("optim:", "optim is empty; give a mapping of settings, or remove it."),
        ("optim: {lr: }", "optim.lr is empty; give a number from 0 up, or remove it."),
        ("data: {class_agnostic: }", "data.class_agnostic is empty; give true or false, or remove it."),
        ("precision: ~", "precision is empty; give a text, or remove it."),
        ("optim: 5", "optim is 5; give a mapping of settings."),
        ("epochs: [1, 2]", "epochs is [1, 2]; give a number above 0."),
        ("epochs: {a: 1}", "epochs is {'a': 1}; give a number above 0."),
        ("epochs: yes", "epochs is True; give a number above 0."),
        ("epochs: many", "epochs is many; give a number above 0."),
        ("epochs: .inf", "epochs is inf; give a number above 0."),
        ("batch_size: 2.5", "batch_size is 2.5; give a whole number above 0."),
        ("schedule: {drops: [0.5, ]}", None),
        (
            "schedule: {drops: [0.5, ~]}",
            "schedule.drops is [0.5, None]; give a list whose items are each a number",
        ),
        ("schedule: {drops: 0.5}", "schedule.drops is 0.5; give a list whose items are each a number"),
        ("data: {categories: cat}", "data.categories is cat; give a list whose items are each a text"),
        ("1: 2", "there is no setting '1'."),
        ("yes: 2", "there is no setting 'True'."),
        ("method:", "method is empty; give boxinst, mask-rcnn,"),
        ("method: [a]", "method is ['a']; give boxinst, mask-rcnn,"),
        ("assumed_images: many", "assumed_images is 'many'; give a whole number above 0"),
        ("", "the recipe is empty; it should be a YAML mapping"),
        ("[1]", "the recipe is a list; it should be a YAML mapping"),
        ("base: absent.yaml", "its base is wrong: "),
        ("base: {epochs: }", "epochs is empty; give a number above 0"),
        ("{" * 5000, "the recipe cannot be read (while increasing flow level exceeded"),
    ],
)
def test_values_of_the_wrong_type_are_named_with_file_and_key(tmp_path, text, said):
    path = tmp_path / "r.yaml"
    path.write_text(text)
    if said is None:
        return read_config(path)
    with pytest.raises(BoxelError) as caught:
        read_config(path)
    assert str(caught.value).startswith(f"{path}: {said}") and "\n" not in str(caught.value)


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
def test_a_recipe_may_have_a_byte_order_mark(tmp_path, encoding):
    (tmp_path / "r.yaml").write_text("epochs: 3\n", encoding=encoding)
    assert read_config(tmp_path / "r.yaml").epochs == 3


@pytest.mark.parametrize("key", ["epochs", "validate_every"])
def test_the_command_line_names_an_empty_key(tmp_path, capsys, key):
    write_scenes(tmp_path, 1, height=64, width=96)
    path = tmp_path / "r.yaml"
    path.write_text(f"{key}:\n")
    words = [
        "train",
        "boxinst",
        str(tmp_path / "boxes.json"),
        "--config",
        str(path),
        "--out",
        str(tmp_path / "run"),
    ]
    assert main(words) == 1
    assert capsys.readouterr().err == f"boxel: {path}: {key} is empty; give a number above 0, or remove it.\n"
    assert not (tmp_path / "run").exists()
