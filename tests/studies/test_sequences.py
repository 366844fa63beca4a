"""Training one sequence model: what is grouped to save time must not change a loss or a gradient."""

import torch

from lib.models.item_inputs import build_item_input
from lib.models.sasrec import SASRec, SASRecConfig, next_item_loss
from lib.studies.sequences import grouped_next_item_loss, like_lengths
from lib.train.losses import full_softmax


def sequences(lengths, n_items=30, width=40):
    generator = torch.Generator().manual_seed(2)
    inputs, targets = (torch.zeros(len(lengths), width, dtype=torch.long) for _ in range(2))
    for row, length in enumerate(lengths):
        inputs[row, :length] = torch.randint(1, n_items + 1, (length,), generator=generator)
        targets[row, :length] = torch.randint(0, n_items + 1, (length,), generator=generator)
    return {"inputs": inputs, "targets": targets}


def test_sequences_of_like_length_read_together_give_the_same_loss_and_gradient():
    torch.manual_seed(1)
    config = SASRecConfig(n_dims=8, n_layers=2, n_heads=2, d_inner=16, max_len=40, dropout=0.0,
                          score="cosine", temperature=0.1)  # fmt: skip
    model = SASRec(build_item_input("id", n_items=30, n_dims=8), config).double()
    batch = sequences([1, 2, 3, 4, 7, 8, 15, 16, 31, 40])
    found = []
    for loss in (next_item_loss, grouped_next_item_loss):
        model.zero_grad()
        value = loss(model, batch, criterion=full_softmax)
        value.backward()
        found.append([value.detach(), *(p.grad.clone() for p in model.parameters())])
    for plain, grouped in zip(*found, strict=True):
        torch.testing.assert_close(plain, grouped, rtol=1e-9, atol=1e-12)


def test_every_row_is_in_one_group_and_no_row_is_padded_to_twice_its_length():
    lengths = torch.randint(1, 300, (500,), generator=torch.Generator().manual_seed(3))
    seen = torch.zeros(500, dtype=torch.long)
    for rows, width in like_lengths(lengths):
        seen[rows] += 1
        assert width < 2 * lengths[rows].clamp(min=2).min() or width <= 3
        assert width == lengths[rows].max()
    assert bool((seen == 1).all())
