"""The learning rate as a pure function of the step, so that resuming needs no scheduler state."""

import math

from lib.train.plan import Plan

__all__ = ["share_at"]


def share_at(step: int, total: int, plan: Plan) -> float:
    """Share of the learning rate in optimizer step ``step`` (from 0) of ``total``.

    Warm-up rises linearly and reaches the full rate in its last step; linear and cosine then fall
    to ``final_share`` in the last step of all. A plateau's reductions are counted by the run.

    >>> plan = Plan(learning_rate=1.0, seed=1, steps=10, schedule="linear", warmup=0.2)
    >>> [round(share_at(step, 10, plan), 3) for step in (0, 1, 2, 5, 9)]
    [0.5, 1.0, 0.875, 0.5, 0.0]
    """
    warm = math.ceil(plan.warmup * total)
    if step < warm:
        return (step + 1) / warm
    if plan.schedule in ("constant", "plateau"):
        return 1.0
    done = min(1.0, (step - warm + 1) / max(1, total - warm))
    left = 1.0 - done if plan.schedule == "linear" else (1.0 + math.cos(math.pi * done)) / 2
    return plan.final_share + (1.0 - plan.final_share) * left
