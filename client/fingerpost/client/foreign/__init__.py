"""Images for workers that are not Fingerpost's: see docs/foreign.md."""
