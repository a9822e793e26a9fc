"""The models on disk and in memory: `models/NAME/VERSION/`, which versions, and when to switch."""
