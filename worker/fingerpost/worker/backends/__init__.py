"""Frameworks that run a model, each behind the `Backend` interface."""
