"""The entry of the `fingerpost` command: Ctrl-C ends it without a traceback, whenever it comes.

Importing the commands takes 0.3 s and more, in which Python would answer Ctrl-C with a traceback of
whatever module it was at. Until they are imported nothing needs an orderly end, so SIGINT does what
it does to every program: it ends the process, which a shell reports as status 130.

This module imports nothing but `signal`, so that little time passes before that.
"""

import signal

__all__ = ["main"]


def main() -> None:
    """Import the command and run it."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # not ignored, as by nohup
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    from fingerpost.deploy import cli

    cli.main()
