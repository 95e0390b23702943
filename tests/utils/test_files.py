"""Files and folders that are written completely or not at all."""

import pytest

from boxel.utils.files import atomic_path


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
    with pytest.raises(OSError) as caught, atomic_path(tmp_path / "a.json") as path:
        path.write_text("one")
    assert caught.value.filename == str(tmp_path / "a.json")
