"""Which images run together, and when. Pure: the time is passed in."""
