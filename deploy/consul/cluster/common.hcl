# Every agent of a secured cluster, servers and clients. `run-cluster` adds a node.hcl to each: its
# name, addresses, ports, certificate files, and the gossip key. Written for Consul 1.8 and later.

acl {
  enabled        = true
  default_policy = "deny"
  # While the servers are away, agents go on with the rights that they know. An agent that denied
  # everything instead would take the cluster down with its servers.
  down_policy = "extend-cache"
  # Tokens set with `consul acl set-agent-token` outlive a restart.
  enable_token_persistence = true
}

# All that comes in by RPC or HTTPS shows a certificate of our own authority; servers show one of a
# server, so that a stolen client certificate cannot pose as a server.
verify_incoming        = true
verify_outgoing        = true
verify_server_hostname = true

# Gossip is encrypted both ways; the key stands in node.hcl.
encrypt_verify_incoming = true
encrypt_verify_outgoing = true

ports {
  http     = -1 # no API without TLS
  grpc     = -1 # no service mesh
  serf_wan = -1 # one datacenter; set it, and retry_join_wan on servers, to join another one
}

# DNS answers come from any server, and hold as many workers as fit. UDP leaves some out without
# saying so (3 of 8 were seen): resolvers that need all of them ask by TCP.
dns_config {
  allow_stale = true
  max_stale   = "87600h"
  udp_answer_limit = 8
}

disable_update_check = true
enable_script_checks = false
