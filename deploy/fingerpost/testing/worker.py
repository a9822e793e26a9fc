"""A real worker around fake models, whose behaviour a test sets."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fingerpost.errors import ConfigurationError, Overloaded
from fingerpost.testing.behaviour import Behaviour

if TYPE_CHECKING:
    from fingerpost.registry import Instance
    from fingerpost.testing.behaviour import ReceivedImage
    from fingerpost.testing.models import FakeModels
    from fingerpost.testing.serving import ServingWorker

__all__ = ["FakeWorker"]


class FakeWorker:
    """A worker of a `FakeCluster`; `FakeCluster.add_worker` makes it.

    What is set of its behaviour holds until `recover`, also over a `restart`.
    """

    def __init__(
        self, models: FakeModels, *, registry: str, zone: str, weight: int, check_images: bool
    ) -> None:
        if not models.names:
            raise ConfigurationError('a worker needs a model, such as {"flowers": "daisy"}')
        self._models = models
        self._registry = registry
        self._zone = zone
        self._weight = weight
        self._check_images = check_images
        self._behaviour = Behaviour(models)
        self._serving: ServingWorker | None = None
        self._refusal: Overloaded | None = None
        self._draining = False

    # What it is

    @property
    def url(self) -> str:
        """Where it listens: `http://127.0.0.1:PORT`. Raises `RuntimeError` while it is dead."""
        return self._running().instances[0].url

    @property
    def instances(self) -> tuple[Instance, ...]:
        """What it has registered, one instance for each model, by name; none while it is dead.

        `Instance.id` and `Instance.address` are what a client's `Result` has as `worker` and
        `address`.
        """
        return self._serving.instances if self._serving is not None else ()

    @property
    def draining(self) -> bool:
        """Whether it is leaving: see `drain`."""
        return self._draining

    @property
    def received(self) -> tuple[ReceivedImage, ...]:
        """The images that reached a model, oldest first, failed ones too.

        Not among them: what was refused earlier, for overload, a drain, a passed deadline, or
        because it is not an image (with `check_images`).
        """
        return self._behaviour.received

    @property
    def in_flight(self) -> int:
        """The requests that it has not answered yet; 0 while it is dead."""
        return self._serving.admission.rif if self._serving is not None else 0

    # How it behaves

    @property
    def delay_s(self) -> float:
        """Seconds that every run of a model takes, of one image or a batch; set it to be slow.

        The load report, health and metrics are answered at once all the same.
        """
        return self._behaviour.delay_s

    @delay_s.setter
    def delay_s(self, delay_s: float) -> None:
        self._behaviour.delay_s = delay_s

    def pause(self) -> None:
        """Answer no image until `resume`: for tests that need requests in flight."""
        self._behaviour.pause()

    def resume(self) -> None:
        """Undo `pause`."""
        self._behaviour.resume()

    def fail(self, error: Exception, *, times: int | None = None) -> None:
        """Fail the next images.

        Args:
            error: of `fingerpost.errors`, answered with its own status; or any other one, which
                is answered as `ModelFailed`. Each image gets a copy.
            times: how many images; all until `recover`, if None.
        """
        self._behaviour.fail(error, times)

    def overload(self, *, retry_after_s: float = 1.0) -> None:
        """Refuse every request by its headers with 429, as a worker with a full queue does.

        Args:
            retry_after_s: seconds for which clients are asked to stay away.
        """
        if retry_after_s < 0:
            raise ConfigurationError(f"retry_after_s is {retry_after_s}: it must be 0 or more")
        self._refusal = Overloaded("this worker is overloaded", retry_after_s=retry_after_s)
        self._apply_refusal()

    def recover(self) -> None:
        """Behave well again: undo `delay_s`, `pause`, `fail` and `overload`."""
        self._behaviour.recover()
        self._refusal = None
        self._apply_refusal()

    # Its life

    async def drain(self) -> None:
        """Leave the healthy list and refuse new work with 503; requests in flight are answered."""
        if not self._draining:
            await self._running().drain()
            self._draining = True

    async def kill(self) -> None:
        """End as in a crash: connections are cut, and the worker does not deregister.

        The registry's check notices within 2 s; a client, when it sends the next image.
        """
        serving, self._serving, self._draining = self._running(), None, False
        await serving.kill()

    async def restart(self) -> None:
        """End if it still runs, and start as a new process on another port.

        Raises:
            ConfigurationError: NumPy is missing.
            RegistryError: the registry is not running.
        """
        try:
            from fingerpost.testing.serving import start_worker
            from fingerpost.worker.config import RegistrationConfig, WorkerConfig
        except ImportError as error:
            raise ConfigurationError(
                f"a worker needs NumPy ({error}): pip install 'fingerpost[testing]'"
            ) from error
        await self.aclose()
        config = WorkerConfig(
            registry=self._registry,
            registration=RegistrationConfig(
                zone=self._zone, weight=self._weight, registry_wait_s=0.0
            ),
        )
        self._serving = await start_worker(
            self._models, self._behaviour, config, check_images=self._check_images
        )
        self._apply_refusal()

    async def aclose(self) -> None:
        """Deregister and end, if it runs; requests in flight fail. The cluster's end calls it."""
        serving, self._serving, self._draining = self._serving, None, False
        if serving is not None:
            await serving.aclose()

    def _apply_refusal(self) -> None:
        if self._serving is not None and not self._draining:
            self._serving.admission.refusal = self._refusal

    def _running(self) -> ServingWorker:
        if self._serving is None:
            raise RuntimeError("this worker is dead: call its restart() first")
        return self._serving
