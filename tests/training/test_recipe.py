"""Settings from recipes and flags: what wins, and what is said of what is wrong."""

from dataclasses import asdict

import pytest
import yaml

from boxel.training.config import BoxInstTraining
from boxel.training.recipe import read_config
from boxel.utils.errors import BoxelError


def test_without_a_recipe_the_defaults_hold():
    assert read_config() == BoxInstTraining()


def test_changes_win_over_the_recipe_and_the_recipe_over_the_defaults(tmp_path):
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text("model: {tau: 0.1, theta: 3.0}\nepochs: 2\n")
    config = read_config(recipe, **{"model.tau": 0.2, "optim.lr": 0.5})
    assert (config.model.tau, config.model.theta, config.epochs, config.optim.lr) == (0.2, 3.0, 2, 0.5)
    assert config.model.backbone == BoxInstTraining().model.backbone


def test_the_mapping_given_is_left_alone():
    recipe = {"model": {"tau": 0.1}}
    read_config(recipe, **{"model.tau": 0.2, "model.theta": 1.0})
    assert recipe == {"model": {"tau": 0.1}}


def test_the_settings_a_run_folder_holds_are_a_recipe(tmp_path):
    config = read_config(
        None, **{"model.tau": 0.25, "augment.scale_jitter": [0.5, 1.5], "data.categories": ["a"]}
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
def test_what_is_wrong_is_named(recipe, message):
    with pytest.raises(BoxelError, match=message) as error:
        read_config(recipe)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("content", ["- a\n- b\n", "a: [", ""])
def test_a_file_that_is_no_recipe_is_named(tmp_path, content):
    path = tmp_path / "recipe.yaml"
    path.write_text(content)
    with pytest.raises(BoxelError, match=r"recipe\.yaml"):
        read_config(path)
    with pytest.raises(BoxelError, match=r"absent\.yaml"):
        read_config(tmp_path / "absent.yaml")
