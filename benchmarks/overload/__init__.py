"""Clients that send more than their links, or the workers, can take."""
