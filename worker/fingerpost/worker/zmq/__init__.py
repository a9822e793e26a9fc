"""The worker's ZeroMQ port."""
