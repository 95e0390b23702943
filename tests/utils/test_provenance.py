"""What made a run: the command, and digests that change with the content."""

from dataclasses import replace
from hashlib import sha256
from importlib import import_module

from boxel.cli import main
from boxel.utils.provenance import describe_origin, digest_file, set_command


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
