"""Renders what notebooks left behind into pages that open from disk."""
