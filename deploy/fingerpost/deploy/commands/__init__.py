"""One module for each subcommand; its `add_to` adds the subcommand to the application."""
