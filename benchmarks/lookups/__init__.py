"""Step 1 alone: how many times a second "where?" is answered, and how often it must be asked."""
