"""How a machine becomes a node of a cluster: the files that are written, and who starts them."""
