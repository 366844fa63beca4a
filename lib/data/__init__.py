"""Raw formats in, two kinds of dataset out: Histories and Clicks. No torch, no training."""
