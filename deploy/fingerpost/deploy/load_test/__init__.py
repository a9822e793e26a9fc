"""`fingerpost bench`: load on a running cluster through the real client, and what it took.

`plan` says what is asked for, `arrivals` when images are due, `tally` counts what becomes of them
in `histogram`s, `report` makes figures of that; all of these are pure. `shell` sends, `samples`
finds the images, `plot` draws.
"""

from fingerpost.deploy.load_test.plan import Plan
from fingerpost.deploy.load_test.report import Report
from fingerpost.deploy.load_test.runner import LoadTest

__all__ = ["LoadTest", "Plan", "Report"]
