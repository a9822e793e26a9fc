"""The HTTP server of a worker: sockets, uploads, admission and errors."""
