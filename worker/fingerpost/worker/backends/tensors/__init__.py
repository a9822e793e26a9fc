"""Models of every framework as functions from named tensors to named tensors."""
