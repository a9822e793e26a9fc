"""The demo of detection: a tiny detector of drawn shapes."""
