"""Commands on models: export, benchmark, sample images, one-shot classification."""
