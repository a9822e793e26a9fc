"""What `fingerpost doctor` looks at on a machine, and what it makes of it."""
