"""`fingerpost demo`: train on handwritten digits, serve them, lose a worker."""
