"""Models on disk and in memory: where versions are found, which are loaded, and when to switch."""
