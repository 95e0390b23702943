"""The command line itself: help, errors, exit codes, spellings, logs, completion and start-up."""

import logging
import os
import re
import shutil
import subprocess
import sys
import warnings
from dataclasses import replace

import pytest

import boxel
from boxel.cli.main import COMMANDS, build_parser, main
from boxel.cli.reference import options_markdown
from boxel.data.images import ImageError
from boxel.data.synthetic import write_scenes
from boxel.utils.errors import EXTRAS, UsageError

EMPTY = '{"images": [], "annotations": [], "categories": []}'


@pytest.fixture
def truth(tmp_path, monkeypatch):
    """Make an empty dataset `truth.json` in the current folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    (tmp_path / "truth.json").write_text(EMPTY)
    return tmp_path / "truth.json"


def run_with(monkeypatch, run):
    """Run `boxel draw truth.json` with another function behind it."""
    monkeypatch.setitem(COMMANDS, "draw", replace(COMMANDS["draw"], run=run))
    return main(["draw", "truth.json"])


@pytest.mark.slow
@pytest.mark.parametrize(
    ("line", "code", "message"),
    [
        ("trian", 2, "there is no command 'trian'. Did you mean 'train'?"),
        ("train boxints truth.json", 2, "there is no method 'boxints'"),
        ("train boxinst x.json --model.tauu 1", 2, "has no flag '--model.tauu'. Did you mean '--model.tau'?"),
        ("train boxinst missing.json", 1, "missing.json: there is no such file or folder; check the path."),
        (
            "train boxinst truth.json --val missing.json",
            1,
            "missing.json: there is no such file or folder; check the path.",
        ),
        ("train boxinst truth.json --rename a", 2, "--rename is a; give OLD=NEW, or several with commas."),
        ("train boxinst truth.json --steps 0", 2, "--steps is 0; give a whole number above 0."),
        ("train boxinst truth.json --steps=1.5", 2, "--steps is 1.5; give a whole number above 0."),
        (
            "train boxinst truth.json --optim.momentum 2",
            2,
            "--optim.momentum is 2; give a number from 0 to 1.",
        ),
        (
            "train boxinst truth.json --schedule.drops 0.1,2",
            2,
            "--schedule.drops is 0.1,2; give a number from 0",
        ),
        ("train boxinst truth.json --label", 2, "--label needs a value"),
        (
            "train boxinst truth.json --data.rename a=b",
            2,
            "has no flag '--data.rename'. Did you mean '--rename'?",
        ),
        ("train boxinst truth.json --model.patch-size 4", 2, "--model.patch-size is 4; give 3 or 5."),
        ("convert truth.json yolo --to yol", 2, "'yol' is not a known format"),
        ("inspect", 2, "needs WHAT: `affinity`, to choose BoxInst's `model.tau` for the images."),
        ("train boxinst truth.json --salient x", 2, "has no flag '--salient'"),
        (
            "predict run --images x",
            2,
            "has no flag '--images'. Usage: boxel predict MODEL SOURCES ... [flags]",
        ),
        ("export run --out x", 2, "takes OUT without a flag (usage: boxel export MODEL OUT [flags])."),
        ("train fcrn-instances truth.json", 2, "name it with --semantic"),
        ("label truth.json --drop 2", 2, "--drop is 2; give a number from 0 to 1."),
        ("label truth.json --drop -1", 2, "--drop is -1; give a number from 0 to 1."),
        ("label truth.json --merge smaler", 2, "Did you mean 'smaller'?"),
        ("label truth.json --flip=yes", 2, "--flip takes no value; write --flip or --no-flip."),
        ("label", 2, "boxel label needs ANNOTATIONS"),
        ("label truth.json photos", 2, "boxel label has no use for 'photos'"),
        ("label truth.json --out masks.txt", 2, ".json"),
        ("label truth.json --report page.pdf", 2, "page.pdf: end the name of this file with .html"),
        ("check truth.json --repair folder", 2, "folder: end the name of this file with .json"),
        ("inspect colors truth.json", 2, "WHAT is colors; give affinity."),
        ("evaluate missing.json truth.json", 1, "missing.json"),
        (
            "evaluate results.json truth.json --baselines boxes",
            2,
            "--baselines is boxes; give box or grabcut",
        ),
        ("evaluate results.json truth.json --json .", 2, ". is a folder; name a file to write."),
        ("demo --steps 3", 2, "--steps is for --train"),
        ("--print-completion csh", 2, "--print-completion needs the name of a shell: bash, zsh, fish."),
    ],
)
def test_errors_are_one_sentence_with_code_1_for_data_and_2_for_usage(line, code, message, truth, capsys):
    assert main(line.split()) == code
    error = capsys.readouterr().err
    assert message in error and error.startswith("boxel: ") and error.count("\n") == 1


def test_settings_that_a_message_names_become_flags_of_the_command(truth, monkeypatch, capsys):
    def fail(given):
        raise UsageError("`class_list` and `subject` are wrong, `other` is not.")

    assert run_with(monkeypatch, fail) == 2
    assert capsys.readouterr().err == "boxel: --class-list and SUBJECT are wrong, `other` is not.\n"


def test_an_error_of_an_image_keeps_its_message(truth, monkeypatch, capsys):
    def fail(_):
        raise ImageError("image-missing", "a.jpg is missing; name its folder with `images`.")

    assert run_with(monkeypatch, fail) == 1
    assert capsys.readouterr().err == "boxel: a.jpg is missing; name its folder with --images.\n"


def test_logs_go_to_stderr_and_a_repeated_warning_is_printed_once(truth, monkeypatch, capsys):
    def log(given):
        logger = logging.getLogger("boxel.data")
        logger.info("reading")
        for _ in range(3):
            logger.warning("no `images`")
            warnings.warn("odd", UserWarning, stacklevel=1)
        print("result")
        return 0

    assert run_with(monkeypatch, log) == 0
    captured = capsys.readouterr()
    assert captured.out == "result\n"
    assert captured.err.splitlines() == ["reading", "warning: no --images", "warning: odd"]


def test_debug_shows_the_traceback_of_an_error(truth, monkeypatch, capsys):
    def fail(given):
        raise ZeroDivisionError("division\nby zero")

    assert run_with(monkeypatch, fail) == 1
    assert capsys.readouterr().err == "boxel: ZeroDivisionError: division by zero (--debug shows where).\n"
    with pytest.raises(ZeroDivisionError):
        main(["draw", "truth.json", "--debug"])


@pytest.mark.parametrize("module", EXTRAS)
def test_a_missing_package_names_its_extra(module, truth, monkeypatch, capsys):
    def fail(given):
        raise ModuleNotFoundError(f"No module named '{module}.x'", name=f"{module}.x")

    assert run_with(monkeypatch, fail) == 1
    error = capsys.readouterr().err
    assert (
        f"boxel draw needs {module}, which is not installed; pip install 'boxel[{EXTRAS[module]}]'" in error
    )
    assert error.count("\n") == 1


def test_flags_take_underscores_and_settings_have_one_short_name(truth):
    parser = build_parser("train boxinst")
    given = parser.parse(
        ["truth.json", "--batch_size", "3", "--mask_classes=a,b", "--categories", "c", "--no-resume"]
    )
    assert (given["batch_size"], given["mask_classes"], given["categories"]) == (
        3,
        ["a", "b"],
        ["c"],
    )
    assert given["resume"] is False and "epochs" not in given
    names = [option.dest for option in parser.options]
    assert len(names) == len(set(names))
    assert parser.parse(["truth.json", "--mask-classes", ""])["mask_classes"] == []


@pytest.mark.parametrize(
    ("name", "words", "value"),
    [
        ("optim.lr", "1e-4", 0.0001),
        ("label", "null", None),
        ("devices", "2", 2),
        ("devices", "auto", "auto"),
        ("schedule.drops", "0.5, 1", [0.5, 1.0]),
        ("optim.name", "adamw", "adamw"),
        ("rename", "cat = animal,dog=animal", {"cat": "animal", "dog": "animal"}),
    ],
)
def test_a_value_is_read_by_its_type(name, words, value):
    given = build_parser("train boxinst").parse(["truth.json", f"--{name}", words])
    assert given.get(name, given.get(f"data.{name}")) == value


def test_flip_and_crf_are_switches_in_every_command(truth):
    for name in ("label", "predict", "evaluate"):
        parser = build_parser(name)
        words = {"label": ["a"], "predict": ["a", "b"], "evaluate": ["a", "b"]}[name]
        given = parser.parse([*words, "--flip", "--no-crf"])
        assert (given["flip"], given["crf"]) == (True, False)


def test_overview_lists_every_command(capsys):
    assert main(["--help"]) == 0
    text = capsys.readouterr().out
    assert all(f"  {name.split()[0]} " in text for name in COMMANDS)
    assert main([]) == 2 and main(["train"]) == 2
    capsys.readouterr()
    assert main(["train", "--help"]) == 0
    text = capsys.readouterr().out
    assert "train boxinst" in text and "train boxcaseg" in text and "  check" not in text


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(COMMANDS))
def test_help_states_usage_and_an_example_and_explains_every_flag(name, capsys):
    assert main([*name.split(), "--help-all"]) == 0
    text = capsys.readouterr().out
    first, last = text.splitlines()[0], text.splitlines()[-1]
    assert first.startswith(f"usage: boxel {name} ") and first.endswith("[flags]")
    assert last.startswith(f"example: boxel {name}")
    assert all(option.help for option in build_parser(name).options)
    page = options_markdown(name)
    assert all(f"`{flag}`" in page for option in build_parser(name).options for flag in option.flags)


@pytest.mark.slow
def test_help_has_no_words_of_python():
    for name in COMMANDS:
        text = build_parser(name, show_all=True).help_text()
        assert not re.search(r"\bNone\b", text), (name, text)


def test_help_of_a_method_is_short_and_help_all_is_complete(capsys):
    assert main(["train", "boxinst", "--help"]) == 0
    short = capsys.readouterr().out
    assert "--epochs" in short and "--categories" in short and "--model.tau" not in short
    assert len(short.splitlines()) < 60 and "more settings: boxel train boxinst --help-all" in short
    assert main(["train", "boxinst", "--help-all"]) == 0
    assert "--model.tau" in capsys.readouterr().out


def test_examples_of_the_help_can_be_parsed():
    for name, command in COMMANDS.items():
        build_parser(name).parse(command.example.split())


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("bash") is None, reason="there is no bash")
@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["la"], "label"),
        (["train", "boxi"], "boxinst"),
        (["train", "boxinst", "--epo"], "--epochs"),
        (["label", "--dro"], "--drop"),
        (["label", "boxes"], ""),
    ],
)
def test_bash_completes_commands_methods_and_flags(words, expected, capsys):
    assert main(["--print-completion", "bash"]) == 0
    script = capsys.readouterr().out
    script += f"COMP_WORDS=(boxel {' '.join(words)}); COMP_CWORD={len(words)}; _boxel; echo ${{COMPREPLY[*]}}"
    done = subprocess.run(["bash", "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == expected


def test_zsh_and_fish_have_completions_too(capsys):
    assert main(["--print-completion", "zsh"]) == 0
    assert capsys.readouterr().out.startswith("autoload")
    assert main(["--print-completion", "fish"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert all(line.startswith("complete -c boxel -n ") for line in lines)
    assert any("__fish_seen_subcommand_from label' -l drop -d '" in line for line in lines)


@pytest.mark.slow
def test_no_help_and_no_usage_error_imports_a_large_package():
    code = """
import sys
import boxel
from boxel.cli.main import COMMANDS, main
main(["label", "--help"])
main(["train", "boxinst", "--help"])
assert not {"numpy", "cv2"} & set(sys.modules)
for name in COMMANDS:
    main([*name.split(), "--help"])
    assert main([*name.split(), "--no-such-flag"]) == 2
large = {"torch", "torchvision", "timm", "lightning", "matplotlib", "skimage", "supervision", "onnxruntime"}
print(large & set(sys.modules), file=sys.stderr)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stderr.splitlines()[-1] == "set()"


@pytest.mark.slow
def test_a_reader_that_has_read_enough_is_not_an_error():
    reader, writer = os.pipe()
    os.close(reader)
    words = [sys.executable, "-m", "boxel", "--version"]  # short, so that it is written at the end
    buffered = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    done = subprocess.run(words, stdout=writer, stderr=subprocess.PIPE, text=True, env=buffered)
    os.close(writer)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.slow
def test_a_training_that_cannot_start_is_refused_before_torch_is_imported(truth):
    code = """
import sys
import boxel
from boxel.cli import main
for name in ("annotations", "val", "masks"):
    given = {"annotations": "truth.json"} | {name: "missing.json"}
    try:
        boxel.train("boxinst", given.pop("annotations"), **given)
    except boxel.BoxelError as error:
        print(error)
print(main(["train", "boxinst", "missing.json"]), main(["train", "boxcaseg", "truth.json", "--salient", "missing"]))
print(main(["train", "boxinst", "truth.json", "--config", "coco-smal"]))
open("model.safetensors", "w").close()
print(main(["train", "boxinst", "truth.json", "--out", "."]))
print(main(["train", "boxinst", "truth.json", "--categories", "persn"]))
print("torch" in sys.modules)
"""
    printed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    refusal = "missing.json: there is no such file or folder; check the path."
    assert printed.splitlines() == [refusal] * 3 + ["1 1", "1", "1", "1", "False"]


@pytest.mark.slow
def test_without_the_extra_python_gets_one_error_that_names_it(truth):
    write_scenes(truth.parent, 2, height=64, width=96)
    code = """
import sys
sys.modules["lightning"] = sys.modules["torch"] = None
import boxel
for call in (lambda: boxel.train("boxinst", "boxes.json", images="images"), lambda: boxel.load("boxcaseg"),
             lambda: boxel.predict("boxcaseg", "x.jpg"), lambda: boxel.export("boxcaseg", "x.onnx")):
    try:
        call()
    except boxel.BoxelError as error:
        print(str(error).split(" (")[0])
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    lines = done.stdout.splitlines()
    assert [line.split()[0] for line in lines] == [f"boxel.{n}" for n in ("train", "load", "load", "export")]
    assert all(line.endswith("which is not installed; pip install 'boxel[train]'") for line in lines)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: boxel.read(5), "`data` is 5; give a path or Annotations."),
        (lambda: boxel.label(5), "`data` is 5; give a path or Annotations."),
        (lambda: boxel.label(5, out="x.json"), "`data` is 5; give a path or Annotations."),
        (lambda: boxel.evaluate(5, 6), "`subject` is 5; give a path, Annotations or COCO results."),
        (lambda: boxel.evaluate([], 6), "`data` is 6; give a path or Annotations."),
        (lambda: boxel.load(5), "`source` is 5; give a path."),
        (lambda: boxel.train("boxinst", 7), "`data` is 7; give a path or Annotations."),
    ],
)
def test_a_value_that_is_not_a_path_gets_one_sentence(call, message):
    with pytest.raises(UsageError) as raised:
        call()
    assert str(raised.value) == message


@pytest.mark.slow
def test_without_torch_a_training_names_the_extra(truth):
    code = "import sys; sys.modules['torch'] = None; from boxel.cli import main; sys.exit(main(sys.argv[1:]))"
    write_scenes(truth.parent, 2, height=64, width=96)
    words = ["train", "boxinst", "boxes.json", "--images", "images"]
    done = subprocess.run([sys.executable, "-c", code, *words], capture_output=True, text=True)
    assert done.returncode == 1
    assert (
        "boxel.train needs torch, which is not installed; pip install 'boxel[train]' (without" in done.stderr
    )
    assert done.stderr.splitlines()[-1].startswith("boxel: boxel.train needs torch")


def test_recipes_are_listed_with_their_methods(capsys):
    assert main(["recipes"]) == 0
    rows = [line.split()[:2] for line in capsys.readouterr().out.splitlines()]
    assert ["coco-small", "boxinst"] in rows and ["mask-rcnn-small", "mask-rcnn"] in rows
    assert main(["recipes", "mask-rcnn"]) == 0
    own = [line.split()[:2] for line in capsys.readouterr().out.splitlines()]
    assert own == [row for row in rows if row[1] == "mask-rcnn"]
    assert main(["recipes", "mask-rcn"]) == 2
    assert "Did you mean 'mask-rcnn'?" in capsys.readouterr().err


def test_a_file_where_the_method_belongs_is_explained(tmp_path, capsys):
    (tmp_path / "boxes.json").write_text("{}")
    assert main(["train", str(tmp_path / "boxes.json")]) == 2
    err = capsys.readouterr().err
    assert err.endswith(
        f"; name one before the annotations: boxel train boxinst {tmp_path / 'boxes.json'}.\n"
    )


def test_help_names_flags_and_not_settings(capsys):
    for words in (["compare"], ["train", "boxinst"], ["evaluate"], ["segments"], ["inspect"]):
        assert main([*words, "--help"]) == 0
        text = " ".join(capsys.readouterr().out.split())
        assert "`class_agnostic_nms`" not in text and "`steps`" not in text
        assert not re.search(r"--(report|results|files|sheet) NAME", text)
    assert "WHAT `affinity`, to choose BoxInst's `model.tau` for the images" in text
