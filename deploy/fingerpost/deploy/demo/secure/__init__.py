"""The demo with all security on: its files, its honest caller, and its attackers."""
