"""Kubernetes as the registry: pods seen through EndpointSlices, and a Lease for each instance."""
