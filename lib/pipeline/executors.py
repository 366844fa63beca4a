"""Where workers run: this machine with tokens, or a Dask cluster. One command, one interface.

Both are a ``concurrent.futures.Executor``; what they run is always ``run-one`` in a session of its
own, which ends when whoever started it ends.
"""

import os
import signal
import subprocess
import sys
import tempfile
import time
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

from lib.pipeline import WrongUse
from lib.pipeline.profile import CODE_ROOT, Home, Node

__all__ = ["DaskPool", "LocalPool", "Pool", "end_all", "launch"]

Ended = tuple[int, str]  # exit code, and the end of what the worker said
TOKENS = ("cpu", "memory_gb", "gpu")
_alive: set[subprocess.Popen[bytes]] = set()


def launch(words: list[str], variables: dict[str, str], follow: bool = False) -> Ended:
    """Run one worker to its end, with the interpreter and the code of this machine."""
    environment = os.environ | {"PYTHONPATH": str(CODE_ROOT)} | variables
    command = [sys.executable, "-m", "lib.pipeline", "run-one", "--leave-with-parent", *words]
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
            end(process, signal.SIGKILL)
        said.seek(max(0, said.seek(0, 2) - 4000))
        return code, said.read().decode(errors="replace")


def end(process: subprocess.Popen[bytes], how: signal.Signals) -> None:
    with suppress(OSError):
        os.killpg(process.pid, how)


def end_all(patience: float = 10.0) -> None:
    """End all workers of this process: politely, then by group."""
    for process in list(_alive):
        end(process, signal.SIGTERM)
    deadline = time.monotonic() + patience
    while _alive and time.monotonic() < deadline:
        time.sleep(0.05)
    for process in list(_alive):
        end(process, signal.SIGKILL)


class LocalPool:
    """Processes on this machine, as many as the tokens allow; an oversized node runs alone."""

    def __init__(self, home: Home, workers: int, follow: bool) -> None:
        memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9
        cards = [str(n) for n in range(64) if Path(f"/dev/nvidia{n}").exists()]
        named = os.environ.get("CUDA_VISIBLE_DEVICES")
        self.cards = cards if named is None else [card for card in named.split(",") if card]
        self.total = {"cpu": float(workers), "memory_gb": memory, "gpu": float(len(self.cards))}
        self.free = dict(self.total)
        self.home, self.follow = home, follow
        self.executor: Executor = ThreadPoolExecutor(max_workers=64)
        self.taken: dict[Future[Ended], tuple[dict[str, float], list[str]]] = {}

    def want(self, node: Node) -> dict[str, float]:
        return {token: min(node.resources[token], self.total[token]) for token in TOKENS}

    def fits(self, node: Node) -> bool:
        for future in [future for future in self.taken if future.done()]:
            tokens, cards = self.taken.pop(future)
            self.cards += cards
            self.free = {token: self.free[token] + tokens[token] for token in TOKENS}
        return all(amount <= self.free[token] for token, amount in self.want(node).items())

    def submit(self, node: Node, words: list[str]) -> "Future[Ended]":
        want = self.want(node)
        cards = [self.cards.pop() for _ in range(int(want["gpu"]))]
        variables = {"LINGREC_HOME": str(self.home.root)}
        if cards:
            variables["CUDA_VISIBLE_DEVICES"] = ",".join(cards)
        self.free = {token: self.free[token] - want[token] for token in TOKENS}
        future = self.executor.submit(launch, words, variables, self.follow)
        self.taken[future] = want, cards
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

    def fits(self, node: Node) -> bool:
        return bool(node)  # Dask queues what does not fit yet

    def submit(self, node: Node, words: list[str]) -> "Future[Ended]":
        """No node asks for more of a token than the largest worker of the cluster declares."""
        workers = self.client.scheduler_info(n_workers=-1)["workers"].values()
        tokens = {token: min(node.resources[token], max(
            (float(worker.get("resources", {}).get(token, 0)) for worker in workers), default=0.0
        )) for token in TOKENS}  # fmt: skip
        some = {token: amount for token, amount in tokens.items() if amount}
        executor: Any = self.client.get_executor(resources=some, pure=False, retries=2)
        future: Future[Ended] = executor.submit(
            launch, words, {"LINGREC_HOME": str(self.home.root)}
        )
        return future

    def stop(self) -> None:
        self.client.close()


Pool = LocalPool | DaskPool  # whether a node fits now, a future for it, and an end
