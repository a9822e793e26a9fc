"""Fingerpost inside other frameworks' pipelines.

`adapters.torch` wraps datasets of PyTorch, `adapters.batch` maps batches of Ray Data, Dask or
anything else that hands out rows or columns. They take a `SyncClient`, which every process that a
framework forks or spawns turns into one of its own. A worker answers an image that it cannot
classify with an error, and so do they: `on_error="raise"` raises it instead.
"""
