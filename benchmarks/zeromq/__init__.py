"""What ZeroMQ costs."""
