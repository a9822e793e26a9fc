"""A load test of a running cluster through the real client, for `fingerpost bench`.

`plan` holds the settings, `arrivals` the times at which images are due, `tally` the counts and
latencies (in `histogram`s), and `report` the figures made of them; all of these are pure. `runner`
sends the images, `samples` reads them, and `plot` draws the figures.
"""

from fingerpost.deploy.load_test.measuring.plan import Plan
from fingerpost.deploy.load_test.measuring.report import Report
from fingerpost.deploy.load_test.runner import LoadTest

__all__ = ["LoadTest", "Plan", "Report"]
