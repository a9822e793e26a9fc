"""xDS: clients of gRPC in any language, and Envoy, find the workers by themselves."""
