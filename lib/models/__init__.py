"""One file per paper, and the bricks they share. Tensors in, logits out."""
