"""How well the truth itself ranks: the row that no model can beat but by luck.

Only evaluation may import this; a test checks who does.
"""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from lib.data.clicks import Clicks
from lib.data.histories import Histories, Targets
from lib.data.world.truth import OBSERVABLE, Truth
from lib.evaluate import ranking
from lib.studies.click_baselines import rows_in_file

__all__ = ["ceiling_probabilities", "ceiling_ranks"]


def ceiling_ranks(
    folder: Path, histories: Histories, targets: Targets, *, filter_seen: bool, chunk: int = 512
) -> NDArray[np.float64]:
    """Ranks of the targets by their true probability, as far as other users' data can tell it.

    One rank per target, so that the ceiling is paired with every model user by user.
    """
    truth = Truth.open(folder)
    wanted = histories.target_items(targets)
    keys = [histories.item_keys[item] for item in wanted]
    times = histories.times[histories.offsets[targets.users] + targets.positions]
    users, positions = truth.locate(keys, times)
    columns = truth.columns(histories.item_keys)

    def score(rows: NDArray[np.int64]) -> NDArray[np.float32]:
        places = rows[:, 0]
        return truth.next_item(users[places], positions[places], columns, known=OBSERVABLE)

    seen = histories.seen(targets.users, targets.positions) if filter_seen else None
    return ranking.rank_targets(np.arange(len(wanted))[:, None], score, wanted, seen, chunk=chunk)


def ceiling_probabilities(
    folder: Path, log: str, clicks: Clicks, rows: NDArray[np.int64]
) -> NDArray[np.float64]:
    """The best statement about each row of one split of a simulated click log.  -> (N,)"""
    file, places = rows_in_file(clicks, rows)
    known = Truth.open(folder).click_probabilities(log, file)
    return np.asarray(known[places], dtype=np.float64)
