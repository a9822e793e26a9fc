"""The policies that come with the client, a module each."""
