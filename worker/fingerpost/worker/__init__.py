"""Models, batching, image decoding, HTTP serving, training. Importing it loads no framework."""
