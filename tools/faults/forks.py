"""``run_all.py`` many times with one import: a process that forks for every command.

What runs is what always runs, ``main`` with the words of the command, in a process and a session
of its own; only the start of Python is saved, which is most of a command that is refused.
"""

import json
import os
import select
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

__all__ = ["SPENT", "Command", "Forks"]

SPENT = [0.0]  # seconds of processor time, of all commands


class Command:
    """A command under way; what ``subprocess.Popen`` would tell of it."""

    def __init__(self, server: "subprocess.Popen[bytes]", said: Path, words: list[str]) -> None:
        assert server.stdin
        assert server.stdout
        self.answers, self.code = server.stdout, None  # type: ignore[var-annotated]
        server.stdin.write(json.dumps([str(said), words]).encode() + b"\n")
        self.pid = int(self.answers.readline())

    def poll(self) -> int | None:
        """The exit code, or None while it runs."""
        with suppress(subprocess.TimeoutExpired):
            self.wait(0.0)
        return self.code

    def wait(self, limit: float) -> int:
        """The exit code, once it has ended."""
        if self.code is None:
            if not select.select([self.answers], [], [], limit)[0]:
                raise subprocess.TimeoutExpired(str(self.pid), limit)
            code, seconds = self.answers.readline().split()
            SPENT[0] += float(seconds)
            self.code = int(code)
        return self.code

    def terminate(self) -> None:
        with suppress(OSError):
            os.kill(self.pid, signal.SIGTERM)


class Forks:
    """Starts commands in one tree, one at a time; ends with whoever made it."""

    def __init__(self, tree: Path, environment: dict[str, str]) -> None:
        self.server = subprocess.Popen(
            [sys.executable, "-P", __file__], cwd=tree, env=environment, bufsize=0,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True,
        )  # fmt: skip

    def start(self, said: Path, words: list[str]) -> Command:
        """Run ``run_all.py`` with these words; what it says goes into a file."""
        said.write_text("", "utf-8")  # nothing of the command before, however early this one ends
        return Command(self.server, said, words)

    def close(self) -> int:
        """End the process that forks, once its last command has ended."""
        self.server.communicate()
        return self.server.returncode


def serve() -> None:
    """Fork for each line; answer with the process number, then with its end and its cost."""
    from lib.pipeline.cli import main

    for line in sys.stdin:
        said, words = json.loads(line)
        sys.stdout.flush()
        if (pid := os.fork()) == 0:
            os.setsid()
            own = os.open(said, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o666)
            for number, handle in ((0, os.open(os.devnull, os.O_RDONLY)), (1, own), (2, own)):
                os.dup2(handle, number)
            sys.argv = ["run_all.py", *words]
            sys.exit(main(words))
        print(pid, flush=True)
        _, status, used = os.wait4(pid, 0)
        print(os.waitstatus_to_exitcode(status), used.ru_utime + used.ru_stime, flush=True)


if __name__ == "__main__":
    serve()
