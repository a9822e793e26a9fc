"""`python -m fingerpost`: the `fingerpost` command, where its script is not on the PATH.

`fingerpost` is a namespace package without `__init__.py`. Python finds this module in the portion
that has it.
"""

from fingerpost.deploy.entry import main

if __name__ == "__main__":
    main()
