"""The `fingerpost` command, the local cluster, and the demo."""
