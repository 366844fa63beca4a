"""The other side of a benchmark: an environment of its own, and rounds in turn.

``make bench`` builds ``.venv-peers`` from ``tools/peers.lock``; it never touches ``.venv``.
"""

import json
import statistics
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PEER_PYTHON = ROOT / ".venv-peers" / "bin" / "python"


def find_peer(package: str, given: Path | None = None) -> Path | None:
    """The interpreter that has ``package``; where there is none, a line of JSON says so."""
    python = given or PEER_PYTHON
    problem = (
        f"no interpreter at {given}" if given else "there is no .venv-peers; `make bench` makes it"
    )
    if python.exists():
        look = f"from importlib.util import find_spec; print(bool(find_spec({package!r})))"
        asked = subprocess.run(
            [str(python), "-c", look], capture_output=True, text=True, check=False
        )
        if asked.stdout.strip() == "True":
            return python
        problem = f"that interpreter has no {package}; `make bench` brings it"
    print(json.dumps({"peer": package, "measured": False, "problem": problem}), flush=True)
    return None


def ratios(ours: Sequence[float], theirs: Sequence[float]) -> dict[str, object]:
    """The ratio of each round, its median and its range.

    >>> ratios([4.0, 9.0, 8.0], [2.0, 3.0, 2.0])
    {'ratio': 3.0, 'range': [2.0, 4.0], 'rounds': 3}
    """
    each = [a / b for a, b in zip(ours, theirs, strict=True)]
    return {"ratio": round(statistics.median(each), 2),
            "range": [round(min(each), 2), round(max(each), 2)], "rounds": len(each)}  # fmt: skip


def medians(answers: Sequence[Mapping[str, object]]) -> dict[str, float]:
    """The median of every number over the rounds.

    >>> medians([{"seconds": 1.0}, {"seconds": 3.0}, {"seconds": 2.0}])
    {'seconds': 2.0}
    """
    names = [name for name, value in answers[0].items() if isinstance(value, int | float)]
    return {name: statistics.median(float(a[name]) for a in answers) for name in names}  # type: ignore[arg-type]


class PeerSession:
    """A peer that stays alive between rounds: one line of JSON asks, one answers."""

    def __init__(self, command: Sequence[str]) -> None:
        # A file and no pipe: nobody reads what the peer says until it fails.
        self.said = tempfile.TemporaryFile(mode="w+")  # noqa: SIM115
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self.said, text=True
        )
        self.told = self._read()

    def ask(self, **request: object) -> dict[str, float]:
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps(request) + "\n")
        self.process.stdin.flush()
        return self._read()

    def close(self) -> None:
        self.process.communicate()
        self.said.close()

    def _read(self) -> dict[str, float]:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            self.process.communicate()
            self.said.seek(0)
            raise RuntimeError("the peer ended:\n" + self.said.read()[-2000:])
        return json.loads(line)
