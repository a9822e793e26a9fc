"""Several processes that take requests for one process that runs the models."""
