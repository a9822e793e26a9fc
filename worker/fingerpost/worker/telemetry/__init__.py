"""What a worker tells about its requests: metrics, traces and access logs."""
