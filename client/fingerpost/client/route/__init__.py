"""How images reach the workers: directly, or through a proxy that relays."""
