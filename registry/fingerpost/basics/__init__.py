"""What all rooms use and that knows none of them: small files, printable text, rare log lines."""
