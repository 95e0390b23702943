"""The file of a job: what is committed stays, whatever happens."""

import sqlite3

import pytest

from boxel.labeling import store as store_module
from boxel.labeling.store import Batch, ImageRows, MaskRow, Store
from boxel.utils.errors import BoxelError

ROWS = [
    MaskRow(0, b'{"size":[1,2],"counts":"11"}', 0.25, "ellipse", True, 2),
    MaskRow(2, b"{}", None, "a+b", False, 0),
]


def image(number, rows=ROWS):
    return ImageRows(bytes([number]) * 16, f"{number}.png", 60 + number, 40, rows)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "masks.sqlite"


def test_added_images_are_returned(path):
    with Store(path) as store:
        assert store.paths() == {} and list(store) == []
        store.add([image(1), image(2, [])])
        store.add([image(3)])
    with Store(path) as store:
        assert list(store) == [image(1), image(2, []), image(3)]
        assert store.paths() == {bytes([n]) * 16: f"{n}.png" for n in (1, 2, 3)}
    assert [file.name for file in path.parent.iterdir()] == ["masks.sqlite"]


def test_images_are_never_overwritten(path):
    with Store(path) as store:
        store.add([image(1)])
        store.add([image(1, [])])
        assert list(store) == [image(1)]


def test_a_batch_is_stored_completely_or_not_at_all(path):
    with Store(path) as store:
        store.add([image(1)])
        with pytest.raises(BoxelError, match=r"masks\.sqlite"):
            store.add([image(2), image(3)._replace(path=None)])  # the second breaks the table's rule
        store.add([image(4)])
    with Store(path) as store:
        assert [i.path for i in store] == ["1.png", "4.png"]


def test_facts_are_plain_data(path):
    with Store(path) as store:
        assert store.get("exports") is None
        store.put("exports", ["yolo"])
        store.put("exports", ["yolo", "voc"])
    with Store(path) as store:
        assert store.get("exports") == ["yolo", "voc"]


def test_changed_settings_are_named_with_both_values(path):
    settings = {"teachers": ["ellipse"], "margin": 0.0, "flip": False}
    with Store(path) as store:
        store.check_settings({"margin": 0.5})
        store.check_settings(settings)  # nothing has been made under the others
        store.add([ImageRows(b"1", "1.png", 8, 8, [])])
    with Store(path) as store:
        store.check_settings(dict(settings))
        with pytest.raises(BoxelError) as raised:
            store.check_settings({"teachers": ["ellipse"], "margin": 0.1, "weights of ellipse": "ab"})
    text = str(raised.value)
    assert "masks.sqlite: its masks were made with other settings" in text
    assert "margin was 0.0 and is 0.1" in text and "flip was false and is missing" in text
    assert 'weights of ellipse was missing and is "ab"' in text and "teachers" not in text
    assert "give the same settings to resume, or name another `out`" in text


def test_one_process_at_a_time(path):
    with (
        Store(path),
        pytest.raises(BoxelError, match=r"masks\.sqlite: cannot be used \(another run is writing"),
    ):
        Store(path)
    Store(path).__exit__()


def test_files_of_other_programs_are_left_alone(path):
    with sqlite3.connect(path) as other:
        other.execute("CREATE TABLE recipes (name TEXT)")
    other.close()
    before = path.read_bytes()
    with pytest.raises(BoxelError, match=r"masks\.sqlite: this file belongs to another program"):
        Store(path)
    assert path.read_bytes() == before
    path.write_text("no database at all" * 100)
    with pytest.raises(BoxelError, match=r"masks\.sqlite: is not the file of a labeling job, or damaged"):
        Store(path)
    with pytest.raises(BoxelError, match="cannot be used"):
        Store(path.parent / "absent" / "masks.sqlite")


def test_the_file_of_another_version_is_left_alone(path):
    with Store(path) as store:
        store.add([image(1)])
    with sqlite3.connect(path) as other:
        other.execute("PRAGMA user_version = 0")
    other.close()
    before = path.read_bytes()
    with pytest.raises(
        BoxelError, match=r"masks\.sqlite: another version .*; name another `out`, and label masks\.json"
    ):
        Store(path)
    assert path.read_bytes() == before


def test_a_temporary_store_leaves_nothing(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with Store() as store:
        store.add([image(1)])
        assert list(store) == [image(1)]
    assert list(tmp_path.iterdir()) == []


def test_batches_are_committed_once_per_second_and_at_the_end(path, monkeypatch):
    now = [100.0]
    monkeypatch.setattr(store_module.time, "monotonic", lambda: now[0])
    with Store(path) as store:
        batch = Batch(store)
        committed = []
        for number, seconds in enumerate([0.4, 0.4, 0.4, 0.9, 0.2, 0.1]):
            now[0] += seconds
            batch.add(image(number))
            committed.append(len(store.paths()))
        assert committed == [0, 0, 3, 3, 5, 5]
        batch.close()
        assert len(store.paths()) == 6
