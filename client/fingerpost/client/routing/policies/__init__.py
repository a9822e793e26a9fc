"""The rules that pick a worker, a module each."""
