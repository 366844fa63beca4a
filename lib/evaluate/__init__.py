"""Numbers in, honest numbers out. Knows no module, no file, no dataset."""
