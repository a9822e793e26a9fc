# Consul's own agents: each writes its node's entry, and reads which services are on it. For many
# machines, a policy for each, with node "NAME" instead, lets no agent speak for another one.
node_prefix "" {
  policy = "write"
}

service_prefix "" {
  policy = "read"
}
