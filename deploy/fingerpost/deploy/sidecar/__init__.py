"""`fingerpost register`: a process beside a foreign server that keeps its entry in the registry."""
