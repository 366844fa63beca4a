"""Logistic regression on categorical ids and numbers: the row that every click model must beat.

    logit = b + Σ_f w[id_f] + Σ_m v_m x_m
    loss  = mean log loss + ridge/(2N) · (‖w‖² + ‖v‖²)        convex, so it has one answer

Minimised by L-BFGS with the exact gradient. Shapes: ids (N, F), numbers (N, M), labels (N,).
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.optimize import minimize
from scipy.sparse import csr_matrix
from scipy.special import expit

__all__ = ["Logistic", "fit_logistic_rows"]

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Logistic:
    """Weights of one fit."""

    bias: float
    of_ids: Floats  # (n_ids,)
    of_numbers: Floats  # (M,)
    steps: int

    def logits(self, ids: npt.NDArray[np.int32], numbers: npt.NDArray[np.float32]) -> Floats:
        """(N, F), (N, M) -> (N,)"""
        of_numbers = numbers.astype(np.float64) @ self.of_numbers
        found: Floats = self.bias + self.of_ids[ids].sum(axis=1) + of_numbers
        return found

    def probabilities(self, ids: npt.NDArray[np.int32], numbers: npt.NDArray[np.float32]) -> Floats:
        """(N, F), (N, M) -> (N,)"""
        found: Floats = expit(self.logits(ids, numbers))
        return found


def fit_logistic_rows(
    ids: npt.NDArray[np.int32],
    numbers: npt.NDArray[np.float32],
    labels: npt.NDArray[np.int8],
    *,
    n_ids: int,
    ridge: float,
    max_steps: int = 200,
) -> Logistic:
    """The minimiser of the loss above; ``max_steps`` stops early, which regularises as well."""
    n, n_fields = ids.shape
    clicked = labels.astype(np.float64)
    if not 0 < clicked.mean() < 1:
        raise ValueError(f"click rate {clicked.mean()} in training, expected both labels")
    if ridge <= 0:
        raise ValueError(f"{ridge=}, expected above 0: an id seen once has no finite weight")
    starts = np.arange(0, n * n_fields + 1, n_fields)
    one_hot = csr_matrix((np.ones(n * n_fields), ids.reshape(-1), starts), shape=(n, n_ids))
    columns = numbers.astype(np.float64)
    one_hot_t, columns_t = one_hot.T.tocsr(), np.ascontiguousarray(columns.T)

    def loss(theta: Floats) -> tuple[float, Floats]:
        z = theta[0] + one_hot @ theta[1 : n_ids + 1] + columns @ theta[n_ids + 1 :]
        error = (expit(z) - clicked) / n
        penalty = theta.copy()
        penalty[0] = 0.0
        value = float(np.mean(np.logaddexp(0, z) - clicked * z))
        value += ridge / (2 * n) * float(penalty @ penalty)
        gradient = np.concatenate([[error.sum()], one_hot_t @ error, columns_t @ error])
        return value, gradient + ridge / n * penalty

    start = np.zeros(1 + n_ids + columns.shape[1])
    start[0] = np.log(clicked.mean() / (1 - clicked.mean()))
    found = minimize(loss, start, jac=True, method="L-BFGS-B", options={"maxiter": max_steps})
    theta = found.x
    return Logistic(float(theta[0]), theta[1 : n_ids + 1], theta[n_ids + 1 :], int(found.nit))
