"""What grows with the fleet and with the clients, and what does not."""
