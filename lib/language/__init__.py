"""Hugging Face models and tokenizers: tuning, embedding, soft tokens. No datasets, no ranking."""
