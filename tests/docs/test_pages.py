"""Code on the pages: what users paste runs and fits on a screen, and every name that is mentioned exists."""

import ast
import json
import re
import shlex
import shutil
from importlib import import_module
from pathlib import Path

import pytest

from boxel.cli.main import build_parser, split_command
from boxel.data.samples import write_sample_images
from boxel.data.synthetic import write_scenes
from boxel.labeling.api import label_data
from boxel.models import build, save
from boxel.models.thresholds import write_thresholds

try:
    import tomllib
except ImportError:  # Python 3.10
    import tomli as tomllib

REPO = Path(__file__).resolve().parents[2]
DOCS = REPO / "docs"
PAGES = sorted([*DOCS.rglob("*.md"), REPO / "README.md"])
TEXTS = [
    *PAGES,
    REPO / "CONTRIBUTING.md",
    REPO / "benchmarks" / "data.md",
    *sorted((REPO / "src" / "boxel" / "weights").glob("*/README.md")),
]
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
    """Write what a page assumes.

    `photo`: street.jpg and astronaut.png. `dataset`: boxes.json with photos/. `results`: those of two models.
    `runs`: an untrained BoxInst and an untrained FCRN, with street.jpg.
    """
    if name == "photo":
        write_sample_images(folder / "all")
        for copy in ("astronaut.png", "street.jpg"):
            shutil.copy(folder / "all" / "astronaut.png", folder / copy)
        return
    truth = write_scenes(folder, 2, height=64, width=96)
    (folder / "images").rename(folder / "photos")
    (folder / "masks.json").rename(folder / "val_masks.json")
    if name == "runs":
        (folder / "photos" / "000000.png").rename(folder / "street.jpg")
        network = {"backbone": "resnet10t", "weights": "none"}
        for run, method in {"boxinst": "boxinst", "classes": "fcrn"}.items():
            model = build(method, len(truth.categories), network)
            save(model, folder / "runs" / run, {"method": method, "model": network}, truth.categories)
        write_thresholds({"all": 0.5, "by_class": {}}, folder / "runs" / "boxinst")
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


@pytest.mark.parametrize("page", TEXTS, ids=lambda page: page.relative_to(REPO).as_posix())
def test_lines_of_code_fit_on_a_screen(page: Path) -> None:
    parts = page.read_text(encoding="utf-8").split("```")
    long = [line for part in parts[1::2] for line in part.splitlines() if len(line) > MAX_CODE_COLUMNS]
    assert not long


def commands() -> list[pytest.ParameterSet]:
    """Every `boxel ...` in a block of code, continued lines joined."""
    found = []
    for page in TEXTS:
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


def spoken_flags() -> list[pytest.ParameterSet]:
    """Every page with the flags that its sentences and tables mention."""
    found = []
    for page in PAGES:
        if page.parent.name in ("reference", "benchmarks"):
            continue
        prose = re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
        spans = re.findall(r"`([^`]+)`", prose)
        flags = {flag for span in spans for flag in re.findall(r"(?<!\S)--[a-z][a-z.-]*[a-z]", span)}
        found.append(pytest.param(flags, id=page.relative_to(REPO).as_posix()))
    return found


@pytest.mark.parametrize("flags", spoken_flags())
def test_flags_in_sentences_exist(flags: set[str]) -> None:
    known = set(
        re.findall(r"`(--[a-z][a-z0-9.-]*)`", (DOCS / "reference" / "cli.md").read_text(encoding="utf-8"))
    )
    others = {"--help", "--help-all", "--debug", "--index-url"}
    missing = {flag for flag in flags - others - known if f"--no-{flag[2:]}" not in known}
    assert not missing, "boxel has no such flags"


@pytest.mark.slow
@pytest.mark.parametrize("page", TEXTS, ids=lambda page: page.relative_to(REPO).as_posix())
def test_what_code_on_pages_imports_exists(page: Path) -> None:
    for code in re.findall(r"```python\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL):
        for node in ast.walk(ast.parse(code)):
            if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("boxel"):
                module = import_module(node.module)
                assert not [name.name for name in node.names if not hasattr(module, name.name)]
            if (
                isinstance(node, ast.Attribute)
                and isinstance(node.value, ast.Name)
                and node.value.id == "boxel"
            ):
                assert hasattr(import_module("boxel"), node.attr), node.attr


def test_contributing_lists_the_packages_from_top_to_bottom() -> None:
    contracts = tomllib.loads((REPO / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["importlinter"]
    (layers,) = (contract["layers"] for contract in contracts["contracts"] if contract["type"] == "layers")
    table = (REPO / "CONTRIBUTING.md").read_text(encoding="utf-8").partition("needs PyTorch")[2]
    listed = re.findall(r"^\| `(\w+)` \|", table.partition("\n\n")[0], re.MULTILINE)
    assert listed == [name for name in layers if name != "__main__"]


def test_every_kind_of_issue_is_on_its_page() -> None:
    code = "".join(
        file.read_text(encoding="utf-8") for file in (REPO / "src" / "boxel" / "data").rglob("*.py")
    )
    kinds = re.findall(r'(?:report|Issue|ImageError)\(\s*"([a-z]+(?:-[a-z]+)+)"', code)
    page = (DOCS / "reference" / "issues.md").read_text(encoding="utf-8")
    assert kinds
    assert not {kind for kind in kinds if f"`{kind}`" not in page}


@pytest.mark.slow
@pytest.mark.parametrize("page", ["get-started.md", "how-to/label.md"])
def test_the_summary_on_a_page_is_that_of_the_sample_images(page, tmp_path):
    boxes = write_sample_images(tmp_path).without_masks()
    assert f"\n{label_data(boxes).summary()}\n" in (DOCS / page).read_text(encoding="utf-8")
