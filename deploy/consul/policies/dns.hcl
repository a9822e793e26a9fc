# Consul's DNS answers without a token: attach this to the anonymous token where resolvers are to
# find the workers. Then everybody who reaches port 8600 or the API sees all addresses.
service_prefix "" {
  policy = "read"
}

node_prefix "" {
  policy = "read"
}
