"""The audit log: who ordered what, and who was refused."""
