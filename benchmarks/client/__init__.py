"""What the client costs beside a bare HTTP loop."""
