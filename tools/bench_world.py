"""How long the offline marketplace takes to simulate and write, and in how much memory.

    python tools/bench_world.py --events 1000000 --logs reviews all

Each size runs in a process of its own, so that its peak memory is its own; JSON on stdout.
``reviews`` makes all events purchases; ``all`` makes half of them purchases, three tenths Avazu
impressions and two tenths rows of the Toss log with its 119 columns.
"""

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

MEAN_EVENTS = 13.0
SHARES = {"reviews": (1.0, 0.0, 0.0), "all": (0.5, 0.3, 0.2)}


def measure(events: int, logs: str) -> dict[str, float | int | str]:
    """Simulate one world in this process."""
    from lib.data.world.config import WorldConfig
    from lib.data.world.simulate import FOLDERS, make_world, write_world

    reviews, avazu, toss = (round(events * share) for share in SHARES[logs])
    n_users = round(reviews / MEAN_EVENTS)
    config = WorldConfig(
        seed=1, n_users=n_users, n_items=max(200, n_users // 4), mean_events=MEAN_EVENTS,
        n_avazu=avazu, n_toss=toss,
    )  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        started = time.perf_counter()
        world = make_world(config)
        drawn = time.perf_counter() - started
        counts = write_world(world, {name: Path(folder) / name for name in FOLDERS})
        total = time.perf_counter() - started
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    return {
        "logs": logs, "events": sum(counts.get(name, 0) for name in
                                    ("reviews", "avazu", "toss_train", "toss_test")),
        "seconds_to_draw": round(drawn, 2), "seconds": round(total, 2), "peak_gib": round(peak, 2),
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--events", type=int, nargs="+", default=[1_000_000])
    parser.add_argument("--logs", nargs="+", choices=sorted(SHARES), default=["reviews", "all"])
    parser.add_argument("--inside", action="store_true", help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.inside:
        print(json.dumps(measure(asked.events[0], asked.logs[0])))
        return
    for events in asked.events:
        for logs in asked.logs:
            command = [
                sys.executable,
                __file__,
                "--inside",
                "--events",
                str(events),
                "--logs",
                logs,
            ]
            print(
                subprocess.run(command, check=True, capture_output=True, text=True).stdout, end=""
            )


if __name__ == "__main__":
    main()
