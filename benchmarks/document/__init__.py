"""docs/benchmarks.md and its plots, made from what was measured and from nothing else."""
