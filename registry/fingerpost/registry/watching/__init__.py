"""Watch a registry: when to ask, what to keep in an outage, whether to believe a shrinking list."""
