"""An embedding table whose training step touches only the rows of the batch.

A table of millions of rows must not be read and written whole at every step: dense Adam alone
costs more than the forward and backward pass of a click model. A lazy `Table` gathers the distinct
rows of its ids into a small leaf tensor and looks up in that leaf, so that autograd produces one
gradient row per touched row. `lib.train` then updates exactly these rows (lazy Adam or row-wise
Adagrad); an optimizer of torch's own sees no gradient for a lazy table and would never train it.

    ids (B, F) -> rows = distinct ids (R) -> leaf = weight[rows] (R, D) -> leaf[places] (B, F, D)
"""

import torch
from torch import Tensor, nn

__all__ = ["Table", "find_distinct", "lazy_tables", "merge_rows"]

MARK_LIMIT = 4  # rows of table per id up to which marking beats torch.unique (measured on a CPU)


class Table(nn.Module):
    """Rows of parameters looked up by id.  (...) int -> (..., D)

    ``lazy=False`` makes it a plain dense parameter: needed where ``weight`` itself takes part in
    the computation, such as the scores of a whole catalogue.

    >>> Table(10, 4)(torch.tensor([[1, 2], [2, 2]])).shape
    torch.Size([2, 2, 4])
    """

    def __init__(self, n_rows: int, n_dims: int, *, lazy: bool = True, scale: float = 0.01) -> None:
        super().__init__()
        if n_rows < 1 or n_dims < 1:
            raise ValueError(f"a table needs rows and dimensions, however: {n_rows=}, {n_dims=}")
        self.lazy = lazy
        self.scale = scale
        self.weight = nn.Parameter(torch.empty(n_rows, n_dims))
        self.touched: list[tuple[Tensor, Tensor]] = []  # (rows, leaf) of each lookup of this step
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Small normal values: the first predictions are then decided by the biases."""
        nn.init.normal_(self.weight, std=self.scale)

    def forward(self, ids: Tensor) -> Tensor:
        if not (self.lazy and self.training and self.weight.requires_grad):
            return nn.functional.embedding(ids, self.weight)
        if not torch.is_grad_enabled():
            return nn.functional.embedding(ids, self.weight)
        rows, places = find_distinct(ids, self.weight.shape[0])
        leaf = self.weight.detach().index_select(0, rows).requires_grad_()  # (R, D)
        self.touched.append((rows, leaf))
        return nn.functional.embedding(places, leaf)

    def take_touched(self) -> tuple[Tensor, Tensor] | None:
        """Distinct rows (R) and their summed gradients (R, D) since the last call; then forget."""
        parts = [(rows, leaf.grad) for rows, leaf in self.touched if leaf.grad is not None]
        self.touched = []
        if not parts:
            return None
        if len(parts) == 1:
            return parts[0]
        return merge_rows(torch.cat([p[0] for p in parts]), torch.cat([p[1] for p in parts]))

    def extra_repr(self) -> str:
        return f"{self.weight.shape[0]}, {self.weight.shape[1]}, lazy={self.lazy}"


def lazy_tables(model: nn.Module) -> dict[str, Table]:
    """The trainable lazy tables of a model by name."""
    return {
        name: module
        for name, module in model.named_modules()
        if isinstance(module, Table) and module.lazy and module.weight.requires_grad
    }


def find_distinct(ids: Tensor, n_rows: int) -> tuple[Tensor, Tensor]:
    """Distinct ids in ascending order, and the place of each id among them.

    Marking the rows and reading the marks back needs no sort; where the table is far larger than
    the batch, reading all marks costs more than torch.unique.

    >>> find_distinct(torch.tensor([7, 3, 7]), 9)
    (tensor([3, 7]), tensor([1, 0, 1], dtype=torch.int32))
    """
    if ids.numel() * MARK_LIMIT < n_rows or ids.is_cuda:
        rows, places = torch.unique(ids, return_inverse=True)
        return rows.long(), places
    flat = ids.reshape(-1).long()
    marks = torch.zeros(n_rows, dtype=torch.bool, device=ids.device)
    marks[flat] = True
    rows = marks.nonzero().squeeze(1)
    places = torch.empty(n_rows, dtype=torch.int32, device=ids.device)  # read only where marked
    places[rows] = torch.arange(len(rows), dtype=torch.int32, device=ids.device)
    return rows, places[flat].reshape(ids.shape)


def merge_rows(rows: Tensor, gradients: Tensor) -> tuple[Tensor, Tensor]:
    """Sum the gradients of equal rows, in the order given, so that reruns agree to the bit."""
    distinct, places = torch.unique(rows, return_inverse=True)
    summed = gradients.new_zeros(len(distinct), gradients.shape[1])
    return distinct, summed.index_add_(0, places, gradients)
