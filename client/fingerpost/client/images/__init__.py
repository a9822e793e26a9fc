"""Images as users hold them, turned into bytes to send."""
