"""One process at a time holds a folder."""

import subprocess
import sys

import pytest

from boxel.utils.errors import BoxelError
from boxel.utils.locks import lock_folder

HOLD = """
import sys, time
from boxel.utils.locks import lock_folder
with lock_folder(sys.argv[1]):
    print("held", flush=True)
    time.sleep(60)
"""


def test_a_folder_is_held_by_one_process_and_free_when_it_is_killed(tmp_path) -> None:
    other = subprocess.Popen([sys.executable, "-c", HOLD, str(tmp_path / "run")], stdout=subprocess.PIPE)
    assert other.stdout is not None and other.stdout.readline() == b"held\n"
    said = rf"^{tmp_path / 'run'}: another run is writing to it; wait for its end"
    with pytest.raises(BoxelError, match=said), lock_folder(tmp_path / "run"):
        pass
    other.kill()
    other.wait()
    other.stdout.close()
    with lock_folder(tmp_path / "run"):
        pass


def test_an_error_frees_the_folder(tmp_path) -> None:
    with pytest.raises(ZeroDivisionError), lock_folder(tmp_path):
        raise ZeroDivisionError
    with lock_folder(tmp_path), lock_folder(tmp_path / "other"):
        pass


def test_a_folder_that_cannot_be_made_is_named(tmp_path) -> None:
    (tmp_path / "file").touch()
    with (
        pytest.raises(BoxelError, match=rf"^{tmp_path / 'file' / 'run'}: cannot be written"),
        lock_folder(tmp_path / "file" / "run"),
    ):
        pass
