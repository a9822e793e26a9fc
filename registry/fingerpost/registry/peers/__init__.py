"""One hardened way to ask a peer: a registry's server, a worker, a proxy."""
