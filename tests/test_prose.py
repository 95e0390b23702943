"""Retired idioms: the word list of CONTRIBUTING.md ("English"), applied to everything that people read.

`python tests/test_prose.py [FOLDER]` lists every hit and counts them by rule.
"""

import re
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

REPO = Path(__file__).resolve().parents[1]
READ = [
    "src",
    "docs",
    "tests",
    "recipes",
    "benchmarks",
    "README.md",
    "CONTRIBUTING.md",
    "CHANGELOG.md",
    "Makefile",
]
SUFFIXES = {".py", ".pyi", ".md", ".yaml", ".yml", ".toml", ".j2", ""}

# pattern -> what to write instead
RETIRED = {
    r"\b(masks?|boxes|objects?|instances?|locations?|segments|steps?|threads?|lines?|once|twice|ms|seconds?|times) "
    r"an? (box|image|photo|mask|step|pixel|epoch|batch|class|crop|core|instance|object|line|row|thread)\b": "per",
    r"\ban? (box|image|photo|mask|line|core|step|thread|class|row|file|worker|segment) each\b": "one per ...",
    r"\bwhere (None|there (is|are) none)\b": "if None, if there is none",
    r", as (?=[`'\"\d]|in recipes|recipes/)": "e.g.",
    r"\b(told|tells|(is|are|be) said)\b|(?<!paper )\bsays\b": "reported, logged, returns, states",
    r"\bdef _?\w+_(of|told|said)\(": "a verb: load_, compute_, parse_",
    r"\b(LEAST|MOST)(_[A-Z]+)*\b|\b(least|most)_[a-z]+|(?<!at )\b(least|most) "
    r"(IoU|share|side|number|area|size|score|masks|boxes|pixels|images|instances|locations|objects)\b":
    "minimum, maximum",
    r"(?<!there )(?<!There )\b(is|are|was|were) no (?!longer|more|less|need|such|better|worse)\w+": "is not a ...",
    r"\b(mend(s|ed|ing)?)\b": "repair",
    r"\bfaults?\b": "issue (of data), error (of code)",
    r"\bdata sets?\b": "dataset",
    r"\b[fF]igures\b(?! \d)": "metrics, results, numbers",
    r"\b(mirrored|looks at)\b": "flipped, TTA pass",
    r"\b(teacher|network|model|program|detector)s? (draws?|drew|drawn)\b": "predicts",
    r"\bground\b(?![- _]truth)": "background",
    r"\blessons?\b": "target, supervision",
    r"\b(surer|surest)\b": "more confident",
    r"\banew\b|\b(go|goes|going|gone|went) on\b(?! to)": "again, resume, from scratch",
    r"\b(come|comes|came|coming) with (boxel|scikit-image|the package)\b": "bundled",
    r"\bwhat (it was asked|(is|was|were) (asked|found|made|drawn|learned|shown))\b": "request, detections, targets",
    r"\b(is|are|be|was|were) had\b": "is available, cannot be loaded",
    r"\bin place of\b": "instead of",
    r"\b(is|are|was|were) to be (?=learned|labeled|found|made|read|written|told)": "will be, must be",
    r"(?i)\b(colour|centre|labell(ed|ing|er)|neighbour|behaviour|favour|grey|artefact|licence|analyse|"
    r"(normal|optim|recogn|initial|minim|maxim|visual|serial|summar|organ|general|special)is(e[sdr]?|ing|ation))":
    "American spelling",
}  # fmt: skip
# In the library, an input is an image: "photo" is for the bundled photographs (`boxel.demo`, `boxel.data.samples`).
RETIRED_IN_SRC = {r"(?<![\w/.\"'])photos?(?![\w/.])": "image"}
PHOTOGRAPHS = ("demo", "samples", "photos")

# (part of a path, the text itself) -> why it may stay
ALLOWED = {
    ("test_prose.py", ""): "the word list itself",
    ("CONTRIBUTING.md", ""): "the word list in words",
    ("tests/faults", "faults"): "names of files",
    ("benchmarks/faults", "faults"): "its own name",
    ("broken-jobs", "faults"): "the name of a file",
    ("selective_search.py", "neighbour"): "the API of higra",
}


def texts(root: Path) -> Iterator[Path]:
    """The files that people read."""
    for name in READ:
        path = root / name
        for file in [path] if path.is_file() else sorted(path.rglob("*")):
            if file.is_file() and file.suffix in SUFFIXES and "__pycache__" not in file.parts:
                yield file


def hits(root: Path) -> list[tuple[str, int, str, str]]:
    """File, line, the text found and what to write instead."""
    found = []
    for file in texts(root):
        name = file.relative_to(root).as_posix()
        rules = dict(RETIRED)
        if name.startswith("src/") and not any(word in name for word in PHOTOGRAPHS):
            rules |= RETIRED_IN_SRC
        for number, line in enumerate(file.read_text(encoding="utf-8").splitlines(), 1):
            for pattern, better in rules.items():
                for match in re.finditer(pattern, line):
                    if not any(part in name and text in match[0] for part, text in ALLOWED):
                        found.append((name, number, match[0].strip(), better))
    return found


@pytest.mark.slow
def test_no_retired_idiom_is_used() -> None:
    found = [f"{name}:{line}: {text!r}: write {better}" for name, line, text, better in hits(REPO)]
    assert not found, "\n".join(found)


if __name__ == "__main__":
    listed = hits(Path(sys.argv[1]) if len(sys.argv) > 1 else REPO)
    for name, line, text, better in listed:
        print(f"{name}:{line}: {text!r}: write {better}")
    for better, count in Counter(row[3] for row in listed).most_common():
        print(f"{count:6} {better}")
    print(f"{len(listed):6} in all")
