"""The version of Fingerpost. It is written here alone; the build reads it from this file."""

__all__ = ["__version__"]

# Not from the metadata of the installed distribution: an editable installation keeps those of the
# day it was made, and reading them takes 20 ms of each start.
__version__ = "0.2.0.dev0"
