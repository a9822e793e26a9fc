"""What benchmarks share: environments for peers, servers, load, pictures, results."""
