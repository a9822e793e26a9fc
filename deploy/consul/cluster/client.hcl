# The agent on a machine with workers, proxies or clients: they speak with it alone.
server = false

# A stopped agent is seen as failed, and is itself again after a restart, with its services. With
# true, a restart of the agent would take the machine's healthy workers off every list at once.
leave_on_terminate = false

# 200 connections from one address is also Consul's default. A Fingerpost process uses up to 109.
limits {
  http_max_conns_per_client = 400
}
