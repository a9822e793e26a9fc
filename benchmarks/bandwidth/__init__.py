"""The reason Fingerpost exists: bytes a second through a balancer, and past it."""
