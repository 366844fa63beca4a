"""Trains any module from any source of batches. Knows no model and no dataset."""
