"""The model card of a run, read as the hub reads it."""

import pytest
from huggingface_hub import EvalResult, ModelCard

from boxel.data.annotations import Category
from boxel.exporting import push_to_hub
from boxel.models import build, save
from boxel.utils.files import write_text


@pytest.fixture
def make_card(tmp_path):
    """A function of a run folder that returns its card."""

    def make(run, **about):
        push_to_hub(run, "anna/cats", out=tmp_path / "out", **about)
        return ModelCard.load(tmp_path / "out" / "README.md")

    return make


def test_the_metadata_is_what_the_hub_reads(run, make_card):
    data = make_card(run, license="cc-by-4.0", datasets=["anna/cat-images"]).data
    assert (data.library_name, data.license, data.pipeline_tag) == (
        "boxel",
        "cc-by-4.0",
        "image-segmentation",
    )
    assert data.tags == ["boxel", "boxinst", "instance-segmentation"]
    assert (data.datasets, data.model_name) == (["anna/cat-images"], "cats")
    (result,) = data.eval_results  # how much of a box is filled measures no quality
    assert result == EvalResult(
        task_type="image-segmentation",
        dataset_type="validation",
        dataset_name="9 validation images",
        metric_type="mask_AP",
        metric_value=0.31254,
    )


def test_the_card_of_a_detector_states_what_the_run_knows(run, make_card):
    text = make_card(run).text
    for line in (
        "Trained by boxel with the method `boxinst`, after [BoxInst](https://arxiv.org/abs/2012.02310).",
        "boxel predict anna/cats photos/ --draw drawn/",
        'instances = model.predict("photo.jpg", score_threshold="best")',
        "`cat`, `car`",
        "| training | 40 | 206 | 10 |",
        "| validation | 9 | 31 | 31 |",
        "Objects without a mask were learned from their boxes, and from masks that `boxcaseg` predicted in them.",
        "Recipe `mine.yaml`, 120 steps, seed 0, boxel 0.1.0, PyTorch 2.14.1.",
        "| mask AP | 0.313 |",
        "- No license is stated.",
    ):
        assert f"\n{line}\n" in text
    assert "\n\n\n" not in text
    assert "On the 9 validation images, which training did not learn from." in text


def test_the_card_of_an_adapted_box_to_mask_model(tmp_path, make_card, tiny_boxcaseg):
    settings = tiny_boxcaseg["model"]
    run = tmp_path / "adapted"
    save(
        build("boxcaseg", 1, settings),
        run,
        {"method": "boxcaseg", "model": settings},
        [Category(1, "object")],
    )
    write_text(run / "metrics.json", '{"step": 17, "left_out_iou": 0.84}')
    write_text(
        run / "adapted.json", '{"masks": 10, "steps": 17, "left_out_iou": [0.827, 0.841], "input": "/home"}'
    )
    card = make_card(run)
    assert (card.data.pipeline_tag, card.data.eval_results) == ("mask-generation", None)
    assert "\nAdapted by `boxel adapt` to 10 true masks in 17 steps.\n" in card.text
    assert "\nMean IoU of masks that were left out: 0.841, before adapting 0.827.\n" in card.text
    assert 'boxel.BoxSegmenter("anna/cats")' in card.text and "--teacher anna/cats" in card.text
    assert "## Classes" not in card.text and "/home" not in card.content


def test_the_card_of_a_semantic_model_without_validation(tmp_path, make_card, tiny_fcrn):
    settings = tiny_fcrn["model"]
    run = tmp_path / "semantic"
    categories = [Category(0, "background"), Category(1, "road `wet`\nor dry")]
    save(build("fcrn", 2, settings), run, {"method": "fcrn", "model": settings}, categories)
    write_text(run / "metrics.json", '{"step": 4}')
    card = make_card(run)
    assert card.data.tags == ["boxel", "fcrn", "semantic-segmentation"]
    assert "\n`road wet or dry`\n" in card.text
    for line in ("The run has no record of its data.", "Nothing: there were no validation images."):
        assert f"\n{line}\n" in card.text
    assert 'label_map.save("classes.png")' in card.text
