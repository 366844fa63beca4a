"""FPMC: factorised personalised Markov chains (Rendle et al., WWW 2010), baskets of one item.

    s(u, l, j) = U_u · E_j  +  N_l · P_j        l: the item bought last

The first product is the user's taste, the second a factorised transition l → j. Both together are
one product of joined vectors. Trained by BPR.
"""

import torch
from torch import Tensor, nn

from lib.models.tables import Table

__all__ = ["FPMC"]


class FPMC(nn.Module):
    """Scores of items for users with a last item (0: none).  (B,), (B,), (B, K) -> (B, K)

    >>> model = FPMC(n_users=3, n_items=5, n_dims=4)
    >>> model(torch.tensor([0, 2]), torch.tensor([0, 5]), torch.ones(2, 7).long()).shape
    torch.Size([2, 7])
    """

    def __init__(self, *, n_users: int, n_items: int, n_dims: int) -> None:
        super().__init__()
        scale = n_dims**-0.5
        self.users = Table(n_users, n_dims, scale=scale)
        self.items = Table(n_items + 1, n_dims, scale=scale)  # what a user likes
        self.before = Table(n_items + 1, n_dims, scale=scale)  # what comes before
        self.after = Table(n_items + 1, n_dims, scale=scale)  # and after it

    def forward(self, users: Tensor, last: Tensor, ids: Tensor) -> Tensor:
        came = self.before(last) * (last > 0)[:, None]
        taste = self.items(ids) @ self.users(users)[:, :, None]
        return (taste + self.after(ids) @ came[:, :, None])[:, :, 0]

    @torch.no_grad()
    def user_vectors(self, users: Tensor, last: Tensor) -> Tensor:
        """(B,), (B,) -> (B, 2 D)"""
        came = self.before.weight[last] * (last > 0)[:, None]
        return torch.cat([self.users.weight[users], came], dim=1)

    @torch.no_grad()
    def item_vectors(self) -> Tensor:
        """() -> (V + 1, 2 D)"""
        return torch.cat([self.items.weight, self.after.weight], dim=1)
