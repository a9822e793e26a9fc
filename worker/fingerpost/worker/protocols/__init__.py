"""What a worker speaks: Fingerpost's own protocol, and those of clients that exist already."""
