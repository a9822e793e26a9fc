# Whoever runs `fingerpost keys`: decides which keys sign leases, and nothing else.
key "fingerpost/lease-keys" {
  policy = "write"
}
