"""One image to one worker: pick, send, retry, and probe the others."""
