"""What a model is on disk: its manifest and its files."""
