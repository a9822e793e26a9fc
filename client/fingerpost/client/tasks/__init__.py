"""Tasks: how inference is asked for, and the typed results."""
