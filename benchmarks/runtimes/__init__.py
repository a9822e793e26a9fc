"""The same network on different frameworks."""
