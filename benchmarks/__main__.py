"""`make bench`: there are no benchmarks yet."""

print("No benchmarks yet.")
