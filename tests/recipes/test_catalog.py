"""Every bundled recipe parses and describes itself; what list_recipes, the page and the length warning make of them."""

import re
from functools import cache
from itertools import pairwise
from pathlib import Path

import pytest
import timm
import yaml

import boxel
from boxel.training.recipe import FOLDER, fit_length, list_recipes, read_config

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
    assert len(RECIPES) == 142
    assert {"demo", "coco-small", "boxinst/table3-projection"} <= RECIPES.keys()
    assert (Path(boxel.__file__).parent / "recipes" / "coco-small.yaml").is_file()


def test_the_page_lists_every_recipe_and_its_commands_name_known_ones():
    page = (REPO / "docs" / "reference" / "recipes.md").read_text(encoding="utf-8")
    assert set(re.findall(r"^\| `([^`]+)` \|", page, re.MULTILINE)) == RECIPES.keys()
    commands = re.findall(r"--config ([\w./-]+)", page)
    assert len(commands) > 20 and set(commands) - {"NAME"} <= RECIPES.keys()
    assert max(len(line) for line in re.findall(r"```(.*?)```", page, re.DOTALL)[0].splitlines()) <= 100


def find_commands(family):
    """The commands of the notes of a family, each as its words."""
    notes = yaml.safe_load((FOLDER / f"{family}.yaml").read_text(encoding="utf-8"))["notes"]
    blocks = "".join(notes.split("```")[1::2]).replace("\\\n", " ")
    return [line.split() for line in blocks.splitlines() if line.startswith("boxel ")]


def test_each_crf_is_tuned_for_its_run_before_it_is_used():
    """BoxSup, Section 5.1; the untuned one does harm."""
    tuned, refined = set(), []
    for _, command, run, *rest in find_commands("boxsup"):
        tuned |= {run} if command == "tune-crf" else set()
        refined += [run] if "--crf" in rest else []
        assert "--crf" not in rest or run in tuned, run
    assert len(refined) == 3


def test_the_commands_of_boxcaseg_lead_to_the_ap_of_its_table_3():
    """Masks of each row, then a Mask R-CNN that learns from them, as in Section 3.4."""
    label, train, evaluate = find_commands("boxcaseg")[2:5]
    assert [label[1], train[1:3], evaluate[1]] == ["label", ["train", "mask-rcnn"], "evaluate"]
    assert {"--merge smaller", "--drop 0.95"} <= {f"{a} {b}" for a, b in pairwise(label)}
    assert label[label.index("--out") + 1] == train[3] and train[train.index("--out") + 1] == evaluate[2]


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
        ("coco-small", 2 * 455, None),
        ("coco-small", 4 * 455, 2000),
        ("coco-small", 20, round(1000 * (20 / 455) ** 0.5)),
        ("coco-small", 2, 100),
        ("boxsup-small", 20, round(30 * 455 / 4 * (20 / 455) ** 0.5)),  # 30 epochs of batches of 4
        ("boxinst/table5-voc-r50", 4 * 10_582, 40_000),
        ({"steps": 10}, 100_000, None),
        (None, 100_000, None),
    ],
)
def test_steps_grow_with_the_square_root_of_the_number_of_images(recipe, images, expected):
    assert fit_length(recipe, images, read_config(recipe)) == expected


def test_a_length_chosen_by_the_user_stays():
    assert fit_length("coco-small", 100_000, read_config("coco-small", steps=5)) is None
    assert fit_length("coco-small", 100_000, read_config("coco-small", seed=5)) is not None


def test_a_recipe_with_another_length_than_its_base_assumes_nothing(tmp_path):
    file = tmp_path / "mine.yaml"
    file.write_text("base: coco-small\nsteps: 5\n")
    assert fit_length(file, 100_000, read_config(file)) is None
    file.write_text("base: coco-small\nseed: 5\n")
    assert fit_length(file, 4 * 455, read_config(file)) == 2000


def test_the_method_of_the_run_stands_in_if_the_recipe_names_none():
    recipe = {"assumed_images": 100, "epochs": 3, "views": {"crop": 64}}
    run = read_config(recipe, "fcrn")
    assert fit_length(recipe, 10, run) == round(3 * 100 / 16 * 10**-0.5) or 100
