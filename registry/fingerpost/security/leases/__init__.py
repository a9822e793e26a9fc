"""Signed leases: the right to send images to one service for some time, checked without asking."""
