"""Several registries as one, such as Kubernetes' pods and the machines in Consul."""
