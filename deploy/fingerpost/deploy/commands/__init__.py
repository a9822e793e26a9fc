"""One module for each subcommand; each adds itself with `add_to`."""
