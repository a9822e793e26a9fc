"""A cluster in one process, for tests of programs that use Fingerpost.

A real registry, a real proxy and real workers on loopback ports, around models that are Python
functions. Nothing is patched: the program under test gets a URL. Importing this package imports no
ML framework and no NumPy; a worker needs NumPy when it starts: `pip install 'fingerpost[testing]'`.
"""

from fingerpost.testing.behaviour import ReceivedImage
from fingerpost.testing.cluster import FakeCluster, fake_cluster
from fingerpost.testing.models import Answer, FakeModel
from fingerpost.testing.sync import SyncFakeCluster, SyncFakeWorker, sync_fake_cluster
from fingerpost.testing.worker import FakeWorker

__all__ = [
    "Answer",
    "FakeCluster",
    "FakeModel",
    "FakeWorker",
    "ReceivedImage",
    "SyncFakeCluster",
    "SyncFakeWorker",
    "fake_cluster",
    "sync_fake_cluster",
]
