"""Tools for models: export, benchmark, sample images, one-shot classification."""
