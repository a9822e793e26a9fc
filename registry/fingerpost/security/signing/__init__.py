"""Signatures of what others believe: who may register, and which models may be loaded."""
