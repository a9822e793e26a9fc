"""What the embedded registry knows, and its answers. Pure: the time is passed in."""
