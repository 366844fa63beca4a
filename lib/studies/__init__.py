"""One row of a study: a model, its data, the loop and the measures put together.

Notebooks say which rows there are; a row is put together here, because the same row is trained by
several notebooks, by benchmarks, and on machines without Jupyter.
"""
