"""Every metric of every complete node as one typed pandas frame, in one call.

Works in a notebook, in a plain JupyterLab cell and on another machine that has only
``reports/metrics.json``.
"""

import json
from pathlib import Path
from typing import TYPE_CHECKING

from lib.pipeline.profile import Home, find_home
from lib.pipeline.store import Store
from lib.report.metrics import COLUMNS, collect, profiles

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["read_results"]

TYPES = {"value": "Float64", "low": "Float64", "high": "Float64", "n": "Int64", "seed": "Int64"}


def read_results(profile: str | None = None, home: Path | None = None) -> "pd.DataFrame":
    """One row a metric: profile, node, notebook, metric, row, segment, value, low, high, n, seed,
    unit, better. Of one profile or of all; missing numbers are NA, missing words empty.

    What the store holds comes first; a profile that it does not know is looked up in
    ``reports/metrics.json``, which names no notebooks.
    """
    import pandas as pd  # 0.4 s, needed only by those who ask for a frame

    home = home or find_home().root
    stored = profiles(home)
    found = []
    for name in [profile] if profile else stored:
        store = Store(Home(home), name)
        notebooks = {folder.name: str(result.record.get("notebook") or "")
                     for folder in sorted(store.root.glob("*"))
                     if (result := store.current(folder.name))}  # fmt: skip
        found += [row | {"notebook": notebooks[str(row["node"])]} for row in collect(home, name)]
    report = home / "reports" / "metrics.json"
    if report.is_file():
        known = {row["profile"] for row in found}
        wanted = [row for row in json.loads(report.read_text("utf-8"))
                  if row["profile"] not in known and profile in (None, row["profile"])]  # fmt: skip
        found += [row | {"notebook": ""} for row in wanted]
    if not found and profile is not None:
        others = sorted({*stored}) or ["none"]
        raise LookupError(
            f"profile {profile!r} has no finished node; those with results: {', '.join(others)}. "
            f"Run it: python run_all.py {profile}"
        )
    columns = [*COLUMNS[:2], "notebook", *COLUMNS[2:]]
    frame = pd.DataFrame(found, columns=columns)
    words = [name for name in columns if name not in TYPES]
    frame[words] = frame[words].fillna("").astype("string")
    return frame.astype(TYPES)
