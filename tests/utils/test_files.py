"""Files and folders that are written completely or not at all."""

import errno

import pytest

from boxel.utils.errors import BoxelError
from boxel.utils.files import atomic_path, partial_path, remove_leftovers, write_text


def test_a_file_replaces_a_file_only_when_it_is_complete(tmp_path) -> None:
    target = tmp_path / "new" / "a.txt"
    with atomic_path(target) as path:
        path.write_text("one")
        assert not target.exists() and path.suffix == ".txt"
    with pytest.raises(ZeroDivisionError), atomic_path(target) as path:
        path.write_text("two")
        raise ZeroDivisionError
    assert target.read_text() == "one" and list(target.parent.iterdir()) == [target]


def test_a_folder_replaces_a_folder_with_all_that_is_in_it(tmp_path) -> None:
    target = tmp_path / "labels"
    for name in ("old.txt", "new.txt"):
        with atomic_path(target) as path:
            path.mkdir()
            (path / name).write_text(name)
    assert [file.name for file in target.iterdir()] == ["new.txt"]
    assert list(tmp_path.iterdir()) == [target]


def test_a_folder_is_replaced_where_two_cannot_change_places_in_one_step(tmp_path, monkeypatch) -> None:
    """As on Windows, where there is no library without a name either."""
    (tmp_path / "out").mkdir()
    monkeypatch.setattr("sys.platform", "win32")
    monkeypatch.setattr("ctypes.CDLL", lambda name: len(name))  # a TypeError for None

    with atomic_path(tmp_path / "out") as folder:
        folder.mkdir()
        (folder / "new.txt").write_text("new")

    assert [file.name for file in tmp_path.rglob("*")] == ["out", "new.txt"]


def test_no_process_is_interrupted_on_windows_where_signal_0_is_ctrl_c(tmp_path, monkeypatch) -> None:
    left = partial_path(tmp_path / "out")
    left.touch()
    monkeypatch.setattr("sys.platform", "win32")
    monkeypatch.setattr("os.kill", lambda process, signal: pytest.fail("a signal is sent"))

    remove_leftovers(tmp_path / "out")

    assert left.exists()


def test_a_link_stays_a_link(tmp_path) -> None:
    (tmp_path / "real.txt").write_text("one")
    link = tmp_path / "link.txt"
    link.symlink_to(tmp_path / "real.txt")
    with atomic_path(link) as path:
        path.write_text("two")
    assert link.is_symlink() and (tmp_path / "real.txt").read_text() == "two"


def test_a_name_as_long_as_the_file_system_allows_can_be_written(tmp_path) -> None:
    target = tmp_path / ("a" * 251 + ".txt")
    with atomic_path(target) as path:
        path.write_text("one")
    assert target.read_text() == "one"


def test_an_error_names_the_path_that_was_given(tmp_path) -> None:
    (tmp_path / "a.json").mkdir()
    said = rf"^{tmp_path / 'a.json'}: cannot be written \(Is a directory\); check the folder\.$"
    with pytest.raises(BoxelError, match=said), atomic_path(tmp_path / "a.json") as path:
        path.write_text("one")


@pytest.mark.parametrize("step", ["write", "replace"])
def test_a_full_disk_keeps_what_was_there_and_names_the_file(tmp_path, monkeypatch, step) -> None:
    target = tmp_path / "a.json"
    target.write_text("old")

    def fail(*names: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", *names)

    if step == "replace":
        monkeypatch.setattr("os.replace", lambda a, b: fail(str(a), None, str(b)))
    with (
        pytest.raises(
            BoxelError, match=r"a\.json: cannot be written \(No space left on device\); free some space"
        ),
        atomic_path(target) as path,
    ):
        path.write_text("new")
        if step == "write":
            fail()
    assert target.read_text() == "old" and list(tmp_path.iterdir()) == [target]


def test_an_error_in_a_folder_names_the_file_in_it(tmp_path) -> None:
    with (
        pytest.raises(BoxelError, match=rf"^{tmp_path / 'new' / 'x' / 'a'}: cannot"),
        atomic_path(tmp_path / "new") as path,
    ):
        path.mkdir()
        (path / "x" / "a").write_text("one")


def test_errors_of_other_files_are_left_alone(tmp_path) -> None:
    with pytest.raises(FileNotFoundError), atomic_path(tmp_path / "a") as path:
        path.write_text((tmp_path / "absent").read_text())
    with pytest.raises(OSError, match="broken data stream"), atomic_path(tmp_path / "a"):
        raise OSError("broken data stream when reading image file")  # as Pillow does


def test_files_have_ordinary_permissions(tmp_path) -> None:
    with atomic_path(tmp_path / "a") as path:
        path.touch(mode=0o600)
    write_text(tmp_path / "b", "one")
    (tmp_path / "c").touch()
    assert len({(tmp_path / name).stat().st_mode for name in "abc"}) == 1
