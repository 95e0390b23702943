"""Run commands of boxel one after another, each in a fork of this process, and break them at a chosen moment.

Reads one JSON object per line: `args` of the command, the folder `cwd` to run it in, and what to do `at` which of its
operations on files under `out` (opening one to write, renaming, linking, copying, making or removing; the first is 1):
`kill` it, send it SIGTERM (`stop`), or let the operation fail as on a `full` disk. With `at` -1 the command runs in
this process, so that the next ones find its modules imported. Writes the exit code, negative for a signal, the number
of operations, and what the command printed.
"""

import contextlib
import errno
import io
import json
import os
import signal
import sys
import tempfile

from boxel.cli import main

EVENTS = {"os.rename", "os.link", "os.mkdir", "os.remove", "os.rmdir", "shutil.copyfile"}


def break_at(number: int, how: str, out: str, counter: int) -> None:
    """Break this process at the given operation; each one is a byte in the pipe `counter`."""
    done = 0

    def hook(event: str, args: tuple[object, ...]) -> None:
        nonlocal done
        writes = event == "open" and isinstance(args[2], int) and args[2] & (os.O_WRONLY | os.O_RDWR)
        if not writes and event not in EVENTS:
            return
        if out not in os.path.abspath(os.fsdecode(args[0])) if isinstance(args[0], str | bytes) else True:
            return
        done += 1
        os.write(counter, b".")
        if done == number and how != "full":
            os.kill(os.getpid(), signal.SIGKILL if how == "kill" else signal.SIGTERM)
        if done >= number and how == "full" and (writes or event in ("os.mkdir", "shutil.copyfile")):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), args[0])

    sys.addaudithook(hook)


def run(args: list[str], cwd: str, out: str, at: int = 0, how: str = "") -> dict[str, object]:
    """Run a command in a fork."""
    if at == -1:
        os.chdir(cwd)
        text = io.StringIO()
        with contextlib.redirect_stdout(text), contextlib.redirect_stderr(text):
            return {"code": main(args), "operations": 0, "text": text.getvalue()}
    reader, writer = os.pipe()
    with tempfile.TemporaryFile() as said:
        child = os.fork()
        if not child:
            os.chdir(cwd)
            os.dup2(said.fileno(), 1)
            os.dup2(said.fileno(), 2)
            sys.stdout, sys.stderr = os.fdopen(1, "w", 1), os.fdopen(2, "w", 1)
            break_at(at, how, os.path.join(cwd, out), writer)
            code = main(args)
            sys.stdout.flush()
            os._exit(code)
        os.close(writer)
        with os.fdopen(reader, "rb") as counted:
            count = len(counted.read())
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        said.seek(0)
        return {"code": code, "operations": count, "text": said.read().decode("utf-8", "surrogateescape")}


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    for line in sys.stdin:
        print(json.dumps(run(**json.loads(line))), flush=True)
