"""Code on the pages: what users paste runs, and fits on a screen."""

import json
import re
import shlex
from pathlib import Path

import pytest

from boxel.cli.main import build_parser, split_command
from boxel.data.samples import write_sample_images
from boxel.data.synthetic import write_scenes

DOCS = Path(__file__).resolve().parents[2] / "docs"
PAGES = sorted([*DOCS.rglob("*.md"), DOCS.parent / "README.md"])
MAX_CODE_COLUMNS = 90
# A comment above a block of Python, `<!-- run: INPUT -->`, has it run in a folder with that input.
RUN = re.compile(r"<!-- run: (\w+) -->\n```python\n(.*?)```", re.DOTALL)


def blocks() -> list[pytest.ParameterSet]:
    """Every block that runs: the input it needs and its code."""
    return [
        pytest.param(match[1], match[2], id=f"{page.relative_to(DOCS.parent).as_posix()}-{k}")
        for page in PAGES
        for k, match in enumerate(RUN.finditer(page.read_text(encoding="utf-8")))
    ]


def write_input(name: str, folder: Path) -> None:
    """Write what a page assumes: `photo`, street.jpg; `dataset`, boxes.json with photos/; `results`, of two models."""
    if name == "photo":
        write_sample_images(folder / "all")
        (folder / "all" / "astronaut.png").rename(folder / "street.jpg")
        return
    truth = write_scenes(folder, 2, height=64, width=96)
    (folder / "images").rename(folder / "photos")
    (folder / "masks.json").rename(folder / "val_masks.json")
    if name == "results":
        rows = [
            {"image_id": truth.image_ids[image], "category_id": truth.categories[label].id}
            | {"bbox": [box[0], box[1], box[2] - box[0], box[3] - box[1]]}
            | {"segmentation": truth.rle(i), "score": 0.9}
            for i, (image, label, box) in enumerate(
                zip(truth.image_index.tolist(), truth.labels.tolist(), truth.boxes.tolist(), strict=True)
            )
        ]
        for file in ("a.json", "b.json"):
            (folder / file).write_text(json.dumps(rows, default=lambda value: value.decode()))


@pytest.mark.slow
@pytest.mark.parametrize(("name", "code"), blocks())
def test_code_on_pages_runs(name: str, code: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if name == "photo":
        pytest.importorskip("skimage")
    write_input(name, tmp_path)
    monkeypatch.chdir(tmp_path)
    exec(compile(code, name, "exec"), {"__name__": "page"})


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_lines_of_code_fit_on_a_screen(page: Path) -> None:
    parts = page.read_text(encoding="utf-8").split("```")
    long = [line for part in parts[1::2] for line in part.splitlines() if len(line) > MAX_CODE_COLUMNS]
    assert not long


def commands() -> list[pytest.ParameterSet]:
    """Every `boxel ...` in a block of code, continued lines joined."""
    found = []
    for page in PAGES:
        for block in page.read_text(encoding="utf-8").split("```")[1::2]:
            for line in block.replace("\\\n", " ").splitlines():
                words = shlex.split(line, comments=True) if line.startswith("boxel ") else []
                if words[1:] and not words[1].isupper():
                    found.append(pytest.param(words[1:], id=f"{page.name}: {line.strip()}"[:90]))
    return found


@pytest.mark.slow
@pytest.mark.parametrize("words", commands())
def test_commands_on_pages_have_flags_that_exist(words: list[str]) -> None:
    if words[0] == "train" and words[1:2] == ["METHOD"]:
        return
    name, rest = split_command(words)
    build_parser(name).parse(rest)
