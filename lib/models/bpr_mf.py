"""BPR-MF: Bayesian personalised ranking of a matrix factorisation (Rendle et al., UAI 2009).

    s(u, j) = U_u · E_j + b_j;   minimise −ln σ(s(u, i) − s(u, j)) over bought i and not-bought j

The bias is written as one more dimension in which every user is one, so that a user and an item are
two vectors and their product is the score.
"""

import torch
from torch import Tensor, nn

from lib.models.tables import Table

__all__ = ["BPRMF"]


class BPRMF(nn.Module):
    """Scores of items for users.  (B,), (B, K) -> (B, K)

    >>> model = BPRMF(n_users=3, n_items=5, n_dims=4)
    >>> model(torch.tensor([0, 2]), None, torch.ones(2, 7).long()).shape
    torch.Size([2, 7])
    """

    def __init__(self, *, n_users: int, n_items: int, n_dims: int) -> None:
        super().__init__()
        self.users = Table(n_users, n_dims, scale=n_dims**-0.5)
        self.items = Table(n_items + 1, n_dims, scale=n_dims**-0.5)
        self.biases = Table(n_items + 1, 1, scale=1e-6)

    def forward(self, users: Tensor, _last: Tensor | None, ids: Tensor) -> Tensor:
        """The last item is not looked at: this model knows no order."""
        scores = (self.items(ids) @ self.users(users)[:, :, None])[:, :, 0]
        return scores + self.biases(ids)[..., 0]

    @torch.no_grad()
    def user_vectors(self, users: Tensor, _last: Tensor) -> Tensor:
        """(B,) -> (B, D + 1)"""
        rows = self.users.weight[users]
        return torch.cat([rows, rows.new_ones(len(rows), 1)], dim=1)

    @torch.no_grad()
    def item_vectors(self) -> Tensor:
        """() -> (V + 1, D + 1)"""
        return torch.cat([self.items.weight, self.biases.weight], dim=1)
