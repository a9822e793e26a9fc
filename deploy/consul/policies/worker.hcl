# A worker of the service SERVICE: put the service's name in place of it. It can register, drain and
# deregister instances of this service, and nothing else.
service "SERVICE" {
  policy = "write"
}

# To read its own entry back: without it, Consul shows every list as empty.
node_prefix "" {
  policy = "read"
}

# The public keys of leases; see docs/security.md.
key "fingerpost/lease-keys" {
  policy = "read"
}
