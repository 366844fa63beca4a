"""Where workers run: this machine with tokens, or a Dask cluster. One command, one interface.

Both are a ``concurrent.futures.Executor``; what they run is always ``run-one`` in a session of its
own, which ends when whoever started it ends.
"""

import contextlib
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from typing import Any, Protocol

from lib.pipeline import WrongUse
from lib.pipeline.profile import CODE_ROOT, Home, Node

__all__ = ["DaskPool", "LocalPool", "Pool", "launch", "worker_command"]

TOKENS = ("cpu", "memory_gb", "gpu")
_alive: set[subprocess.Popen[bytes]] = set()


def worker_command(profile: str, node: str, *, force: bool, follow: bool) -> list[str]:
    command = [sys.executable, "-m", "lib.pipeline", "run-one", node, "--profile", profile]
    return command + ["--force"] * force + ["--follow"] * follow + ["--leave-with-parent"]


def launch(command: list[str], variables: dict[str, str], follow: bool = False) -> tuple[int, str]:
    """Run one worker to its end; returns its exit code and the end of what it said."""
    environment = os.environ | {"PYTHONPATH": str(CODE_ROOT)} | variables
    with tempfile.TemporaryFile() as said:
        process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL,
            stderr=None if follow else said, env=environment, start_new_session=True,
        )  # fmt: skip
        _alive.add(process)
        try:
            code = process.wait()
        finally:
            _alive.discard(process)
            if process.stdin:
                process.stdin.close()
            with contextlib.suppress(OSError):
                os.killpg(process.pid, signal.SIGKILL)
        said.seek(max(0, said.seek(0, 2) - 4000))
        return code, said.read().decode(errors="replace")


def end_all(patience: float = 10.0) -> None:
    """End all workers of this process: politely, then by group."""
    for process in list(_alive):
        with contextlib.suppress(OSError):
            os.killpg(process.pid, signal.SIGTERM)
    deadline = time.monotonic() + patience
    while _alive and time.monotonic() < deadline:
        time.sleep(0.05)
    for process in list(_alive):
        with contextlib.suppress(OSError):
            os.killpg(process.pid, signal.SIGKILL)


class Pool(Protocol):
    """What the walk needs: whether a node fits now, a future for it, and an end."""

    def fits(self, node: Node) -> bool: ...

    def submit(self, node: Node, command: list[str]) -> "Future[tuple[int, str]]": ...

    def stop(self) -> None: ...


class LocalPool:
    """Processes on this machine, as many as the tokens allow; an oversized node runs alone."""

    def __init__(self, home: Home, workers: int, follow: bool) -> None:
        memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9
        cards = [str(n) for n in range(64) if os.path.exists(f"/dev/nvidia{n}")]  # noqa: PTH110
        named = os.environ.get("CUDA_VISIBLE_DEVICES")
        self.cards = cards if named is None else [card for card in named.split(",") if card]
        self.total = {"cpu": float(workers), "memory_gb": memory, "gpu": float(len(self.cards))}
        self.free = dict(self.total)
        self.home, self.follow = home, follow
        self.executor: Executor = ThreadPoolExecutor(max_workers=64)
        self.lock = threading.Lock()

    def _want(self, node: Node) -> dict[str, float]:
        return {token: min(node.resources[token], self.total[token]) for token in TOKENS}

    def fits(self, node: Node) -> bool:
        return all(amount <= self.free[token] for token, amount in self._want(node).items())

    def submit(self, node: Node, command: list[str]) -> "Future[tuple[int, str]]":
        want = self._want(node)
        variables = {"LINGREC_HOME": str(self.home.root)}
        with self.lock:
            for token, amount in want.items():
                self.free[token] -= amount
            mine = [self.cards.pop() for _ in range(int(want["gpu"]))]
        if mine:
            variables["CUDA_VISIBLE_DEVICES"] = ",".join(mine)
        future = self.executor.submit(launch, command, variables, self.follow)

        def give_back(_: object) -> None:
            with self.lock:
                self.cards.extend(mine)
                for token, amount in want.items():
                    self.free[token] += amount

        future.add_done_callback(give_back)
        return future

    def stop(self) -> None:
        end_all()
        self.executor.shutdown(wait=True, cancel_futures=True)


class DaskPool:
    """Workers of a Dask cluster that shares the project's folder. Dask keeps the tokens."""

    def __init__(self, home: Home, address: str) -> None:
        from distributed import Client

        try:
            self.client = Client(address, timeout=10)
        except (OSError, ValueError) as error:
            raise WrongUse(f"--executor dask={address}: no scheduler answers ({error})") from error
        self.home = home

    def declared(self) -> dict[str, float]:
        """The largest amount of each token that a single worker of the cluster declares."""
        workers = self.client.scheduler_info(n_workers=-1)["workers"].values()
        offers = [worker.get("resources", {}) for worker in workers]
        return {token: max((float(offer.get(token, 0)) for offer in offers), default=0.0)
                for token in TOKENS}  # fmt: skip

    def fits(self, node: Node) -> bool:
        return bool(node)  # Dask queues what does not fit yet

    def submit(self, node: Node, command: list[str]) -> "Future[tuple[int, str]]":
        declared = self.declared()
        tokens = {token: min(node.resources[token], declared[token])
                  for token in TOKENS if declared[token] and node.resources[token]}  # fmt: skip
        executor: Any = self.client.get_executor(resources=tokens, pure=False, retries=2)
        variables = {"LINGREC_HOME": str(self.home.root)}
        plain = ["python", *command[1:]]
        future: Future[tuple[int, str]] = executor.submit(launch_here, plain, variables)
        return future

    def stop(self) -> None:
        self.client.close()


def launch_here(command: list[str], variables: dict[str, str]) -> tuple[int, str]:
    """``launch`` with the interpreter of the machine that it runs on."""
    return launch([sys.executable, *command[1:]], variables)
