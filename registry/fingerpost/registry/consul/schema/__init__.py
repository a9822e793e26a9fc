"""What Consul's JSON means: entries, health checks, models in metadata. Pure: no I/O."""
