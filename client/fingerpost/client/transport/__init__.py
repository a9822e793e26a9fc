"""HTTP/1.1 connections to workers: opened, pooled, timed and closed."""
