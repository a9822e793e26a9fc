"""Fingerpost inside the pipelines of other frameworks.

`adapters.torch` wraps datasets of PyTorch. `adapters.batch` maps batches of Ray Data, Dask or any
other framework that has rows or columns. Both take a `SyncClient`; in every process that a
framework forks or spawns it becomes a client of that process. For an image that fails they return
the error in its place; `on_error="raise"` raises it.
"""
