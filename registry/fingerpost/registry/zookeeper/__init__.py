"""ZooKeeper as the registry: a session, ephemeral nodes and watches."""
