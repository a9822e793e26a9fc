"""The demo: train on handwritten digits, serve them, and lose a worker."""
