"""Nodes, keys, store and processes: runs notebooks so that their results can be trusted."""
