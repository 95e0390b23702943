"""The file of a job: what is committed stays, whatever happens."""

import sqlite3

import pytest

from boxel.labeling import store as store_module
from boxel.labeling.store import Batch, ImageRows, Row, Store
from boxel.utils.errors import BoxelError

ROWS = [Row(0, b'{"size":[1,2],"counts":"11"}', 0.25, "ellipse", True), Row(2, b"{}", None, "a+b", False)]


def image(number, rows=ROWS):
    return ImageRows(bytes([number]) * 16, f"{number}.png", 60 + number, 40, rows)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "masks.sqlite"


def test_what_is_added_comes_back(path):
    with Store(path) as store:
        assert store.known() == {} and list(store) == []
        store.add([image(1), image(2, [])])
        store.add([image(3)])
    with Store(path) as store:
        assert list(store) == [image(1), image(2, []), image(3)]
        assert store.known() == {bytes([n]) * 16: f"{n}.png" for n in (1, 2, 3)}
    assert [file.name for file in path.parent.iterdir()] == ["masks.sqlite"]


def test_what_is_there_is_never_overwritten(path):
    with Store(path) as store:
        store.add([image(1)])
        store.add([image(1, [])])
        assert list(store) == [image(1)]


def test_a_batch_is_whole_or_not_there(path):
    with Store(path) as store:
        store.add([image(1)])
        with pytest.raises(BoxelError, match=r"masks\.sqlite"):
            store.add([image(2), image(3)._replace(path=None)])  # the second breaks the table's rule
        store.add([image(4)])
    with Store(path) as store:
        assert [i.path for i in store] == ["1.png", "4.png"]


def test_facts_are_plain_data(path):
    with Store(path) as store:
        assert store.fact("exports") is None
        store.keep_fact("exports", ["yolo"])
        store.keep_fact("exports", ["yolo", "voc"])
    with Store(path) as store:
        assert store.fact("exports") == ["yolo", "voc"]


def test_changed_settings_are_named_with_both_values_and_a_remedy(path):
    settings = {"teachers": ["ellipse"], "margin": 0.0, "flip": False}
    with Store(path) as store:
        store.agree({"margin": 0.5})
        store.agree(settings)  # nothing has been made under the others
        store.add([ImageRows(b"1", "1.png", 8, 8, [])])
    with Store(path) as store:
        store.agree(dict(settings))
        with pytest.raises(BoxelError) as raised:
            store.agree({"teachers": ["ellipse"], "margin": 0.1, "weights of ellipse": "ab"})
    text = str(raised.value)
    assert "masks.sqlite: its masks were made with other settings" in text
    assert "margin was 0.0 and is 0.1" in text and "flip was false and is not there" in text
    assert 'weights of ellipse was not there and is "ab"' in text and "teachers" not in text
    assert "give the same settings to go on, or name another --out" in text


def test_one_process_at_a_time(path):
    with (
        Store(path),
        pytest.raises(BoxelError, match=r"masks\.sqlite: can't be used \(another run is writing"),
    ):
        Store(path)
    Store(path).__exit__()


def test_another_programs_file_is_left_alone(path):
    with sqlite3.connect(path) as other:
        other.execute("CREATE TABLE recipes (name TEXT)")
    other.close()
    before = path.read_bytes()
    with pytest.raises(BoxelError, match=r"masks\.sqlite: this file is another program's"):
        Store(path)
    assert path.read_bytes() == before
    path.write_text("no database at all" * 100)
    with pytest.raises(BoxelError, match=r"masks\.sqlite: is no file of a labeling job, or damaged"):
        Store(path)
    with pytest.raises(BoxelError, match="can't be used"):
        Store(path.parent / "absent" / "masks.sqlite")


def test_a_temporary_store_leaves_nothing(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with Store() as store:
        store.add([image(1)])
        assert list(store) == [image(1)]
    assert list(tmp_path.iterdir()) == []


def test_a_batch_is_committed_once_a_second_and_at_the_end(path, monkeypatch):
    now = [100.0]
    monkeypatch.setattr(store_module.time, "monotonic", lambda: now[0])
    with Store(path) as store:
        batch = Batch(store)
        committed = []
        for number, seconds in enumerate([0.4, 0.4, 0.4, 0.9, 0.2, 0.1]):
            now[0] += seconds
            batch.add(image(number))
            committed.append(len(store.known()))
        assert committed == [0, 0, 3, 3, 5, 5]
        batch.close()
        assert len(store.known()) == 6
