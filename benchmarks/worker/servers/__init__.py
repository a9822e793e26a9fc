"""Peers' servers, each as its own documentation shows it, run by its own environment's Python."""
