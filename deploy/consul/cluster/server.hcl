# One of three servers: any one of them may fail. Five servers survive two failures.
server           = true
bootstrap_expect = 3

# A new leader in some 3 s instead of 14 s (measured). On machines that swap or share their CPU
# heavily, leave it out: a slow server would be taken for a dead one.
performance {
  raft_multiplier = 1
}

# A server that is stopped stays a member of the cluster: it will be back.
leave_on_terminate = false
