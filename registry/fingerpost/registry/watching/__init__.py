"""Watches of a registry: when to poll, what to store for outages, which lists to believe."""
