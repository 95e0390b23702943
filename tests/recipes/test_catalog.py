"""Every bundled recipe parses and describes itself; what list_recipes, the page and the length warning make of them."""

import re
from functools import cache
from pathlib import Path

import pytest
import timm

import boxel
from boxel.training.recipe import length_warning, list_recipes, read_config

REPO = Path(__file__).resolve().parents[2]
RECIPES = {recipe.name: recipe for recipe in list_recipes()}
FAMILIES = sorted({name.split("/")[0] for name in RECIPES})


@cache
def config(name):
    return read_config(name, RECIPES[name].method)


@pytest.mark.slow
@pytest.mark.parametrize("family", FAMILIES)
def test_every_recipe_parses(family):
    for name in RECIPES:
        if name.split("/")[0] == family and "views" in vars(config(name)):
            # No weight of a classifier sees padding alone.
            assert config(name).model.field_of_view <= config(name).views.crop


def test_rows_of_papers_state_what_they_reproduce_and_small_recipes_what_they_gave():
    for name, recipe in RECIPES.items():
        assert recipe.assumed_images
        if "/" in name:
            assert recipe.paper
            assert bool(recipe.published) == ("Table" in recipe.about)
        else:
            assert recipe.measured and not recipe.paper


def test_recipes_ship_in_the_package():
    assert len(RECIPES) == 141
    assert {"demo", "coco-small", "boxinst/table3-projection"} <= RECIPES.keys()
    assert (Path(boxel.__file__).parent / "recipes" / "coco-small.yaml").is_file()


def test_the_page_lists_every_recipe_and_its_commands_name_known_ones():
    page = (REPO / "docs" / "reference" / "recipes.md").read_text(encoding="utf-8")
    assert set(re.findall(r"^\| `([^`]+)` \|", page, re.MULTILINE)) == RECIPES.keys()
    commands = re.findall(r"--config ([\w./-]+)", page)
    assert len(commands) > 20 and set(commands) - {"NAME"} <= RECIPES.keys()
    assert max(len(line) for line in re.findall(r"```(.*?)```", page, re.DOTALL)[0].splitlines()) <= 100


@pytest.mark.slow
def test_backbones_of_the_papers_have_imagenet_weights():
    names = {config(name).model.backbone for name in RECIPES if "/" in name}
    assert names == {
        *(f"resnet{depth}.tv_in1k" for depth in (50, 101, 152)), "vgg16.tv_in1k", "hrnet_w48.ms_in1k",
    }  # fmt: skip
    assert all(timm.models.get_pretrained_cfg(name).has_weights for name in names)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("recipe", "images", "expected"),
    [
        ("coco-small", 455, None),
        ("coco-small", 4 * 455, None),
        ("coco-small", 4 * 455 + 1, "1,000 steps show each of 1,821 images 2.2 times instead of 8.8"),
        ("coco-small", 20, None),  # more passes than meant do no harm
        ("boxsup-small", 20, "30 epochs of 20 images are 150 steps instead of 3,412"),
        ("boxsup-small", 100_000, None),
        ("boxinst/table5-voc-r50", 100_000, "meant for about 10,582 images"),
        ({"steps": 10}, 100_000, None),
        (None, 100_000, None),
    ],
)
def test_a_run_much_shorter_than_meant_gets_a_warning(recipe, images, expected):
    warning = length_warning(recipe, images, read_config(recipe))
    assert warning is None if expected is None else expected in warning


def test_a_length_chosen_by_the_user_gets_no_warning():
    assert length_warning("coco-small", 100_000, read_config("coco-small", steps=5)) is None
    assert length_warning("coco-small", 100_000, read_config("coco-small", seed=5)) is not None


def test_a_recipe_with_another_length_than_its_base_assumes_nothing(tmp_path):
    file = tmp_path / "mine.yaml"
    file.write_text("base: coco-small\nsteps: 5\n")
    assert length_warning(file, 100_000, read_config(file)) is None
    file.write_text("base: coco-small\nseed: 5\n")
    assert "about 455 images" in length_warning(file, 100_000, read_config(file))


def test_the_method_of_the_run_stands_in_if_the_recipe_names_none():
    recipe = {"assumed_images": 100, "epochs": 3, "views": {"crop": 64}}
    run = read_config(recipe, "fcrn")
    assert "3 epochs of 10 images" in length_warning(recipe, 10, run)
