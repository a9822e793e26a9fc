"""The routes from a client to the workers: direct, or through a relaying proxy."""
