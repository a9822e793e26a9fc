"""Consul as the registry: its HTTP API, health checks, ACLs, TLS and datacenters."""
