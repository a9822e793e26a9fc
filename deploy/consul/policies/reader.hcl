# Proxies and clients: they resolve and watch, and change nothing. Instead of all services, name
# each one with service "NAME", or a common prefix.
service_prefix "" {
  policy = "read"
}

# Without it, Consul shows every list as empty.
node_prefix "" {
  policy = "read"
}

# The public keys of leases; see docs/security.md.
key "fingerpost/lease-keys" {
  policy = "read"
}
