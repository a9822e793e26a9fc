"""A model on disk: its manifest, its files and the states of its versions."""
