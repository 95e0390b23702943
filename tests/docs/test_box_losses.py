"""The code of docs/how-to/box-losses.md runs as printed, and its losses train."""

import re
from pathlib import Path

import pytest
import torch

PAGE = Path(__file__).resolve().parents[2] / "docs" / "how-to" / "box-losses.md"


@pytest.fixture(scope="module")
def page():
    """The names that the code blocks of the page define, run one after the other."""
    pytest.importorskip("transformers")
    torch.manual_seed(0)
    names = {}
    for block in re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL):
        exec(compile(block, str(PAGE), "exec"), names)
        if "model" in names:
            assert all(loss.isfinite() for loss in names["losses"].values())
    return names


@pytest.mark.slow
def test_code_blocks_run_and_all_losses_are_used(page):
    assert page["losses"].keys() == {"class", "projection", "affinity", "mask"}
    assert all(loss > 0 for loss in page["losses"].values())
    assert all(parameter.isfinite().all() for parameter in page["model"].parameters())


@pytest.mark.slow
def test_mask2former_learns_masks_from_boxes(page):
    """Two squares of one color on another; only boxes are given, and the masks become the squares."""
    torch.manual_seed(0)
    boxes = torch.tensor([[8.0, 8.0, 40.0, 40.0], [56.0, 24.0, 88.0, 56.0]])
    images = torch.full((1, 3, 64, 96), 0.2)
    true = torch.zeros(2, 16, 24, dtype=torch.bool)
    colors = [0.9, 0.2, 0.2], [0.2, 0.8, 0.3]
    for mask, (x0, y0, x1, y1), color in zip(true, boxes.int().tolist(), colors, strict=True):
        images[0, :, y0:y1, x0:x1] = torch.tensor(color)[:, None, None]
        mask[y0 // 4 : y1 // 4, x0 // 4 : x1 // 4] = True
    target = {
        "boxes": boxes,
        "labels": torch.tensor([1, 2]),
        "masks": torch.zeros(2, 16, 24),
        "has_mask": torch.tensor([False, False]),
    }
    model = type(page["model"])(page["model"].config)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    for _ in range(60):
        outputs = model(pixel_values=(images - 0.5) / 0.25)
        losses = page["query_losses"](outputs, images, [target], num_classes=3)
        optimizer.zero_grad()
        sum(losses.values()).backward()
        optimizer.step()
    spans = page["box_spans"](boxes, 16, 24, stride=4)
    maps = outputs.masks_queries_logits[0].detach()
    query, box = page["match"](outputs.class_queries_logits[0].detach(), maps, target["labels"], *spans)
    masks = maps[query] > 0
    iou = (masks & true[box]).sum((1, 2)) / (masks | true[box]).sum((1, 2))
    assert iou.min() > 0.9
