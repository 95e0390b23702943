"""What made a run: the command, and digests that change with the content."""

from dataclasses import replace
from hashlib import sha256
from importlib import import_module

from boxel.cli import main
from boxel.utils.provenance import describe_origin, digest_file, digest_folder, set_command


def test_the_command_is_known_only_while_it_runs(tmp_path, monkeypatch) -> None:
    seen, commands = [], import_module("boxel.cli.main").COMMANDS
    check = replace(commands["check"], run=lambda given: seen.append(describe_origin()["command"]) or 0)
    monkeypatch.setitem(commands, "check", check)
    (tmp_path / "a b.json").touch()
    monkeypatch.chdir(tmp_path)
    assert main(["check", "a b.json"]) == 0
    assert seen == ["boxel check 'a b.json'"] and describe_origin()["command"] is None
    set_command(None)


def test_digests_are_those_of_sha256sum(tmp_path) -> None:
    (tmp_path / "a").write_bytes(b"abc" * 1_000_000)
    assert digest_file(tmp_path / "a") == sha256(b"abc" * 1_000_000).hexdigest()


def test_a_folder_changes_with_names_and_contents_of_its_files(tmp_path) -> None:
    (tmp_path / "labels").mkdir()
    (tmp_path / "labels" / "a.txt").write_text("0 0.5 0.5 1 1")
    (tmp_path / "a.jpg").write_text("pixels")
    first = digest_folder(tmp_path, frozenset({".jpg"}))
    (tmp_path / "a.jpg").write_text("other pixels")
    (tmp_path / ".lock").touch()
    assert digest_folder(tmp_path, frozenset({".jpg"})) == first != digest_folder(tmp_path)
    (tmp_path / "labels" / "a.txt").write_text("1 0.5 0.5 1 1")
    second = digest_folder(tmp_path, frozenset({".jpg"}))
    (tmp_path / "a.jpg").rename(tmp_path / "b.jpg")
    assert len({first, second, digest_folder(tmp_path, frozenset({".jpg"}))}) == 3
