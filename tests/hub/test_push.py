"""What is uploaded of a run, and what is not."""

import json
import os
import subprocess
import sys
import traceback

import pytest
import yaml
from huggingface_hub import constants
from PIL import Image

import boxel
from boxel.exporting import push_to_hub
from boxel.utils.errors import BoxelError, UsageError

WRITER, READER = "hf_writer_0123456789", "hf_reader_0123456789"
FILES = {
    *("README.md", "categories.json", "config.yaml", "metrics.json", "model.safetensors", "run.json"),
    "score_thresholds.json",
}


@pytest.fixture
def token(monkeypatch):
    monkeypatch.setenv("HF_TOKEN", WRITER)


def test_a_run_is_uploaded_and_comes_back(hub, run, token):
    pushed = push_to_hub(run, "anna/cats")
    repo = hub.repos["anna/cats"]
    assert repo.private
    assert repo.files.keys() == FILES | {".gitattributes"}
    assert repo.files["model.safetensors"] == (run / "model.safetensors").read_bytes()
    assert (pushed.address, pushed.commit) == (f"{hub.url}/anna/cats", repo.refs["main"])
    assert pushed.files == {name: len(repo.files[name]) for name in FILES}
    model = boxel.load("anna/cats")
    assert [(c.id, c.name) for c in model.categories] == [(17, "cat"), (3, "car")]
    assert model.settings["score_thresholds"] == {"all": 0.5, "by_class": {"cat": 0.25}}


def test_nothing_private_is_uploaded(hub, run, token, tmp_path):
    push_to_hub(run, "anna/cats")
    files = hub.repos["anna/cats"].files
    for name, content in files.items():
        for secret in (str(tmp_path), "/home", "Users", "laptop", "secret-customer", "boxes.json", WRITER):
            assert secret.encode() not in content, (name, secret)
    assert json.loads(files["run.json"]) == {
        "boxel": "0.1.0",
        "date": "2026-11-30T10:20:52+00:00",
        "python": "3.11.7",
        "method": "boxinst",
        "recipe": "mine.yaml",
        "seed": 0,
        "device": "1 x cpu",
        "versions": {"torch": "2.14.1"},
        "inputs": {
            "data": [{"sha256": "e3b0", "images": 40, "instances": 206, "masks": 10}],
            "images": [{"sha256": "aa11"}],
        },
        "training": {"images": 40, "instances": 206, "masks": 10},
        "validation": {"images": 9, "instances": 31, "masks": 31},
    }
    config = yaml.safe_load(files["config.yaml"])
    assert (config["init"], config["hints"], config["model"]["weights"]) == (
        "first",
        "boxcaseg",
        "imagenet.pth",
    )
    assert config["data"] == {"class_list": "classes.txt", "rename": {"car/van": "car"}}
    assert config["model"]["backbone"] == "tf_efficientnet_lite0"


def test_files_of_a_repository_are_never_overwritten_silently(hub, run, token):
    repo = hub.add(
        "anna/cats", {".gitattributes": b"", "notes.txt": b"mine", "crf.yaml": b"old"}, private=True
    )
    with pytest.raises(
        BoxelError, match=r"anna/cats has files already \(crf\.yaml, notes\.txt\); set `overwrite`"
    ):
        push_to_hub(run, "anna/cats")
    assert len(repo.commits) == 1 and not hub.paths("PUT")
    push_to_hub(run, "anna/cats", overwrite=True)
    assert repo.files.keys() == FILES | {".gitattributes", "notes.txt"}  # the CRF was that of another model
    assert repo.files["notes.txt"] == b"mine"


def test_a_change_during_the_upload_is_not_overwritten(hub, run, token):
    repo = hub.add("anna/cats", {"README.md": b"old"}, private=True)
    hub.before_commit = lambda: repo.commit({"README.md": b"of somebody else"})
    with pytest.raises(BoxelError, match=r"^anna/cats has changed on the Hugging Face Hub during the upload"):
        push_to_hub(run, "anna/cats", overwrite=True)
    assert repo.files == {"README.md": b"of somebody else"}


@pytest.mark.parametrize(("is_private", "wanted"), [(False, True), (True, False)])
def test_a_private_model_never_becomes_public_by_mistake(hub, run, token, is_private, wanted):
    repo = hub.add("anna/cats", {}, private=is_private)
    with pytest.raises(
        BoxelError, match=r"and `private` is o(n|ff); turn it o(n|ff), or name another repository"
    ):
        push_to_hub(run, "anna/cats", private=wanted, license="mit")
    assert len(repo.commits) == 1


def test_a_public_model_needs_a_license(hub, run, token):
    with pytest.raises(
        UsageError, match=r"a public model needs a license, e\.g\. apache-2\.0; name it with `license`"
    ):
        push_to_hub(run, "anna/cats", private=False)
    assert not hub.requests
    push_to_hub(run, "anna/cats", private=False, license="mit")
    assert not hub.repos["anna/cats"].private
    assert b"\nlicense: mit\n" in hub.repos["anna/cats"].files["README.md"]


def test_a_license_that_the_hub_does_not_know_is_named(hub, run, token):
    with pytest.raises(BoxelError, match=r'"license" must be one of \[apache-2\.0, mit\]'):
        push_to_hub(run, "anna/cats", license="wtf")
    assert hub.repos["anna/cats"].files.keys() == {".gitattributes"}


def test_the_files_can_be_written_instead_and_are_uploaded_as_they_were_edited(hub, run, token, tmp_path):
    out = tmp_path / "shared"
    written = push_to_hub(run, "anna/cats", license="mit", out=out)
    assert not hub.requests
    assert {file.name for file in out.iterdir()} == set(written.files) == FILES
    assert str(written).startswith(f"written to {out}, not uploaded: README.md (")
    card = (out / "README.md").read_text() + "\nCats of Vienna.\n"
    (out / "README.md").write_text(card)
    push_to_hub(out, "anna/cats", private=False)  # its card states the license
    files = hub.repos["anna/cats"].files
    assert files["README.md"].decode() == card
    assert files["run.json"] == (out / "run.json").read_bytes()
    with pytest.raises(UsageError, match=r"states the license mit, and `license` is apache-2\.0"):
        push_to_hub(out, "anna/cats", license="apache-2.0", overwrite=True)
    with pytest.raises(BoxelError, match="exists and is not an empty folder; name another `out`"):
        push_to_hub(run, "anna/cats", out=out)
    assert {file.name for file in out.iterdir()} == FILES


@pytest.mark.parametrize(
    ("token", "message"),
    [
        (
            None,
            "an upload needs a token; log in with `hf auth login`, or set HF_TOKEN to one that may write.",
        ),
        (READER, "your token may not do this; use one with the permission to write to it."),
        (
            "hf_expired",
            "the Hugging Face Hub does not accept your token; log in with `hf auth login`, or set HF_TOKEN.",
        ),
    ],
)
def test_a_token_that_is_not_enough(hub, run, monkeypatch, token, message):
    if token:
        monkeypatch.setenv("HF_TOKEN", token)
    with pytest.raises(BoxelError) as error:
        push_to_hub(run, "anna/cats")
    assert str(error.value) == f"anna/cats: {message}"
    assert not hub.repos


def test_without_a_network_nothing_is_uploaded(hub, run, token, monkeypatch):
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(
        BoxelError, match=r"^anna/cats: nothing is uploaded, since http://127\.0\.0\.1:9 cannot be reached"
    ):
        push_to_hub(run, "anna/cats")


def test_the_wrong_name_or_folder_is_refused_before_anything_is_sent(hub, run, token, tmp_path):
    for name in ("cats", "anna/cats@v1", "a/b/c", "anna/ca ts"):
        with pytest.raises(UsageError, match=f"`repo` is '{name}'; give owner/name"):
            push_to_hub(run, name)
    with pytest.raises(BoxelError, match="there is no such folder; give the folder of a finished run"):
        push_to_hub("boxcaseg", "anna/cats")
    (run / "model.safetensors").unlink()
    with pytest.raises(BoxelError, match=r"it has no model\.safetensors"):
        push_to_hub(run, "anna/cats")
    assert not hub.requests


def test_the_token_is_never_printed(hub, run, monkeypatch, caplog, capfd):
    monkeypatch.setenv("HF_TOKEN", "hf_secret\x0btoken")  # a header that the client refuses, and quotes
    caplog.set_level("DEBUG", "boxel")
    for action in (lambda: push_to_hub(run, "anna/cats"), lambda: boxel.load("anna/cats")):
        with pytest.raises(BoxelError, match=r"anna/cats: the Hugging Face Hub cannot be used \(") as error:
            action()
        assert error.value.__cause__ is None and error.value.__suppress_context__
        shown = "".join(traceback.format_exception(error.value)) + caplog.text + "".join(capfd.readouterr())
        assert "secret" not in shown


@pytest.mark.slow
def test_the_command_in_a_process_of_its_own(hub, run, tmp_path):
    def boxel_command(*words, token=WRITER):
        cache = str(tmp_path / "cache")
        env = os.environ | {
            "HF_ENDPOINT": hub.url,
            "HF_TOKEN": token,
            "HF_HUB_CACHE": cache,
            "HF_HUB_DISABLE_XET": "1",
        }
        done = subprocess.run(
            [sys.executable, "-m", "boxel", *words], env=env, capture_output=True, text=True
        )
        assert token not in done.stdout + done.stderr
        return done.returncode, done.stdout, done.stderr

    code, out, err = boxel_command("push", str(run), "anna/cats", "--license", "mit", "--no-private")
    commit = hub.repos["anna/cats"].refs["main"]
    assert (code, out) == (0, f'{hub.url}/anna/cats\nthis version: boxel.load("anna/cats@{commit}")\n')
    assert err.startswith("uploading to anna/cats, which is public: README.md (")
    assert hub.repos["anna/cats"].files.keys() == FILES | {".gitattributes"}
    code, out, err = boxel_command("push", str(run), "anna/cats", "--license", "mit", "--no-private")
    assert (code, out) == (1, "")
    assert err.splitlines()[-1] == (
        "boxel: anna/cats has files already (README.md, categories.json, config.yaml, ...); set --overwrite to replace "
        "those of a model, or name another repository."
    )
    code, out, err = boxel_command("push", str(run), "cats")
    assert (code, err) == (2, "boxel: REPO is 'cats'; give owner/name.\n")
    Image.new("RGB", (64, 48)).save(tmp_path / "black.png")
    predict = [
        "predict",
        f"anna/cats@{commit}",
        str(tmp_path / "black.png"),
        "--out",
        str(tmp_path / "found.json"),
    ]
    code, out, err = boxel_command(*predict)
    assert (code, json.loads((tmp_path / "found.json").read_text())) == (0, [])
    code, out, err = boxel_command("predict", "anna/dogs", str(tmp_path / "black.png"))
    assert code == 1 and err.startswith(
        "boxel: anna/dogs is neither a folder nor a model on the Hugging Face Hub"
    )
    assert err.count("\n") == 1
