"""Label the set of a folder while being killed again and again; prints how many images were done each time."""

import os
import random
import signal
import sqlite3
import sys
import time
from pathlib import Path

from boxel.labeling import store
from boxel.labeling.api import label_data
from boxel.labeling.config import parse_label_config

folder = Path(sys.argv[1])
store.COMMIT_SECONDS = 0.0
options = {"teacher": "grabcut-ellipse", "workers": 2}
boxes, out = folder / "set" / "boxes.json", folder / "broken" / "masks.json"
commit = store.Store.add


def killed(work, commits, pause):
    """Work in a process of its own that is killed some seconds after some commits."""
    reader, writer = os.pipe()
    child = os.fork()
    if not child:

        def add(self, batch):
            commit(self, batch)
            os.write(writer, b".")

        store.Store.add = add
        work()
        os._exit(0)
    os.close(writer)
    while commits > 0 and os.read(reader, 1):
        commits -= 1
    time.sleep(pause)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    os.close(reader)


def label():
    label_data(boxes, out=out, **options)


def die_in_mid_commit():
    def add(self, batch):
        self._db.execute("PRAGMA cache_size = 1")  # pages go to the file before the commit
        self._db.execute("BEGIN EXCLUSIVE")
        rows = [(bytes([n]), bytes(9999)) for n in range(50)]
        self._db.executemany("INSERT INTO images VALUES (?, 'x', 1, 1, ?)", rows)
        self._db.execute("DELETE FROM facts")
        os.kill(os.getpid(), signal.SIGKILL)

    store.Store.add = add
    label()


parse_label_config()  # imports what each child would have to import
random.seed(0)
counts = []
for moment in range(12):
    if moment % 4 == 2:
        size = out.with_suffix(".sqlite").stat().st_size
        killed(die_in_mid_commit, 1, 0)
        assert out.with_suffix(".sqlite").stat().st_size > size  # it was in the middle of it
    else:
        killed(label, random.choice([0, 1, 2, 4]) if moment else 1, random.uniform(0, 0.006))
    database = sqlite3.connect(out.with_suffix(".sqlite"))
    counts.append(database.execute("SELECT count(*) FROM images").fetchone()[0])
    database.close()
last = label_data(boxes, out=out, **options)
label_data(boxes, out=folder / "whole" / "masks.json", **options)
print(*counts, last.reused, last.labeled)
