"""Every metric of every complete node: ``reports/metrics.json`` and the frame read from it."""

from pathlib import Path
from typing import TYPE_CHECKING

from lib.report.results import Result, current_result, home_folder, profiles
from lib.report.text import tidy

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["COLUMNS", "collect", "frame"]

COLUMNS = ("profile", "node", "metric", "row", "segment", "value", "low", "high", "n", "seed",
           "unit", "better")  # fmt: skip


def collect(home: Path, profile: str) -> list[dict[str, object]]:
    """The metrics of one profile, one dict per number, in the order of nodes and notebooks."""
    found = []
    for folder in sorted((home / "data" / "store" / profile).glob("*")):
        result = current_result(folder)
        found += _rows(profile, folder.name, result) if result else []
    return found


def _rows(profile: str, node: str, result: Result) -> list[dict[str, object]]:
    return [{
        "profile": profile, "node": node, "metric": tidy(m.name), "row": tidy(m.row),
        "segment": tidy(m.segment), "value": m.value, "low": m.low, "high": m.high, "n": m.n,
        "seed": m.seeds[0] if m.seeds else None, "unit": tidy(m.unit), "better": m.better,
    } for m in result.metrics]  # fmt: skip


def frame(profile: str | None = None, home: Path | None = None) -> "pd.DataFrame":
    """All metrics of a profile (or of all) as a frame with the columns of ``metrics.json``."""
    import pandas as pd  # 0.4 s, needed only by those who ask for a frame

    home = home or home_folder()
    names = [profile] if profile else profiles(home)
    return pd.DataFrame([row for name in names for row in collect(home, name)], columns=COLUMNS)
