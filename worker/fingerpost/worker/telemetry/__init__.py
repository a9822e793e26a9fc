"""Metrics, traces and access logs of the requests to a worker."""
