"""HTTP/1.1 connections to workers: opening, pooling, time limits."""
