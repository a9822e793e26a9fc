"""ZeroMQ, whose package is imported only where it is used."""
