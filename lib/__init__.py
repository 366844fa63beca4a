"""What the notebooks import: ``lib.start`` opens a run, the packages below do the work."""




