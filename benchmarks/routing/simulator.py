"""A simulated cluster: the routing classes of production, and workers that are queues.

A worker works on `slots` images at once; others wait in its queue. Or production's `Batcher` makes
its batches, learns their times, and forecasts. An image takes `service_s` on average, divided by
the worker's speed, which other programs (antagonists) change every few seconds. It is drawn from a
normal distribution whose deviation is its mean, cut off at zero, as in Prequal's testbed. A message
takes half a round trip, and an upload its bytes over the bandwidth.

Clients do what `Prober`, `Service` and `Dispatcher` do, without sockets: they probe with a request,
and before one that is worth it; they skip reports that follow another too soon, time out, and try
again on another worker, within their budget.
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable
from heapq import heappop, heappush
from math import inf
from typing import Any, Final

from benchmarks.routing import parties
from benchmarks.routing.parties import NO_WORKERS, Client, Link, Request, Worker
from benchmarks.routing.scenario import Event, Result, Scenario
from fingerpost.basics.moving_average import ewma
from fingerpost.client.routing import Outcome, Pick, RetryAt
from fingerpost.registry import ModelReference

__all__ = ["simulate"]

_MODEL: Final = ModelReference("m")
_SMOOTHING: Final = 0.1  # of the client's average of its requests
_FAIL_FAST_S: Final = 0.001


class _Simulation:
    def __init__(self, scenario: Scenario) -> None:
        self.scenario = scenario
        self.rng = random.Random(scenario.seed)
        self.chance = random.Random(scenario.seed + 1)  # of routing: the loads stay the same
        self.now = 0.0
        self.heap: list[tuple[float, int, Callable[[Any], None], Any]] = []
        self.count = 0
        self.half_s = scenario.rtt_s / 2
        rates = scenario.mb_per_s
        self.workers = [
            Worker(speed, scenario, rates[index % len(rates)])
            for index, speed in enumerate(scenario.speeds)
        ]
        self.capacity = scenario.capacity
        self.clients = [Client(scenario) for _ in range(scenario.clients)]
        self.waiting: deque[Request] = deque()  # in the order of their deadlines
        self.listed = set(range(len(self.workers)))
        self.listed -= {each.worker for each in scenario.events if each.mode == "joining"}
        self.result = Result(sent=[[] for _ in self.workers])

    def run(self) -> Result:
        scenario = self.scenario
        self.announce()
        for event in scenario.events:
            self.at(event.at_s, self.change, event)
        if scenario.antagonists:
            for worker in self.workers:
                worker.factor = self.rng.choice(scenario.antagonists)
                self.at(self.rng.expovariate(1 / scenario.antagonist_s), self.antagonise, worker)
        if scenario.at_once:
            for client in self.clients * scenario.at_once:
                self.at(self.rng.random() * scenario.service_s, self.request, client)
        else:
            self.at(0.0, self.arrive, None)
        heap = self.heap
        while heap:
            self.now, _, action, argument = heappop(heap)
            action(argument)
        return self.result

    def at(self, time: float, action: Callable[[Any], None], argument: Any) -> None:
        self.count += 1
        heappush(self.heap, (time, self.count, action, argument))

    def announce(self) -> None:
        view = parties.snapshot_of(self.listed, self.count + 1, self.now)
        for client in self.clients:
            client.balancer.update(view, self.now)

    def change(self, event: Event) -> None:
        worker = self.workers[event.worker]
        worker.speed *= event.speed
        if event.mode in ("joining", "leaving"):
            (self.listed.add if event.mode == "joining" else self.listed.discard)(event.worker)
            self.announce()
        else:
            worker.mode = event.mode

    def antagonise(self, worker: Worker) -> None:
        scenario = self.scenario
        if self.now < scenario.duration_s:
            worker.factor = self.rng.choice(scenario.antagonists)
            wait_s = self.rng.expovariate(1 / scenario.antagonist_s)
            self.at(self.now + wait_s, self.antagonise, worker)

    # The client

    def arrive(self, _: None) -> None:
        """A request arrives at a client; schedule the next."""
        scenario, rng, now = self.scenario, self.rng, self.now
        if now >= scenario.duration_s:
            self.time_out(inf)
            return
        load = scenario.load
        if isinstance(load, tuple):
            load = load[0] + (load[1] - load[0]) * now / scenario.duration_s
        self.at(now + rng.expovariate(load * self.capacity), self.arrive, None)
        self.request(self.clients[int(rng.random() * len(self.clients))])

    def request(self, client: Client) -> None:
        scenario, rng, now = self.scenario, self.rng, self.now
        self.time_out(now)
        size, work = scenario.draw(rng)
        request = Request(client, now, size * scenario.image_mb, work)
        client.budget.request(now, int(request.mb * 1e6))
        self.waiting.append(request)
        if scenario.probes:
            self.ahead(request)
        else:
            self.attempt(request)

    def ahead(self, request: Request) -> None:
        """Probe before the pick if that is worth it, and wait for two answers."""
        client, now = request.client, self.now
        probing, config = client.balancer.probing, self.scenario.routing.probing
        expected_s = client.seconds / client.mb * request.mb if client.mb else 0.0
        if probing.worth_waiting(expected_s, client.reported_at, now):
            likely = client.balancer.likely(_MODEL, now, self.chance)
            asked = self.probe(client, probing.ahead(now, likely=bool(likely)), request, likely)
            request.preceded, request.awaits = asked if likely else 0, probing.answers(asked)
        if request.awaits:
            self.at(now + config.sync_timeout_s, self.begin, request)
        else:
            self.begin(request)

    def begin(self, request: Request) -> None:
        if request.begun:
            return
        request.begun = True
        client, now = request.client, self.now
        probing = client.balancer.probing
        self.probe(client, probing.on_request(now, request.preceded))
        if not client.timer and probing.next_at() < inf:
            client.timer = True
            self.at(probing.next_at(), self.tick, client)
        self.attempt(request)

    def tick(self, client: Client) -> None:
        probing = client.balancer.probing
        self.probe(client, probing.on_timer(self.now))
        next_at = probing.next_at()
        client.timer = next_at < self.scenario.duration_s
        if client.timer:
            self.at(max(next_at, self.now + 1e-6), self.tick, client)

    def probe(self, client: Client, count: int, request: Any = None, likely: Any = None) -> int:
        """Send up to `count` probes, for whose answers `request` waits; return how many."""
        found = client.balancer.to_probe(
            _MODEL, count, self.now, self.chance, likely=likely, asked=client.asked
        )
        for each in found:
            client.asked.add(each.id)
            asked_at = self.now, each.in_flight
            message_s = self.workers[int(each.id)].message_s(self.scenario)
            self.at(self.now + message_s, self.probed, (client, each, request, asked_at))
        self.result.probes += len(found)
        return len(found)

    def probed(self, argument: Any) -> None:
        worker = self.workers[int(argument[1].id)]
        report = worker.report(self.now) if worker.mode == "up" else None
        self.at(self.now + self.half_s, self.reported, (*argument, worker.mode, report))

    def reported(self, argument: Any) -> None:
        client, each, request, (asked_at, before), mode, report = argument
        client.asked.discard(each.id)
        rtt_s = self.now - asked_at
        if mode == "refusing":
            each.suspect(self.now)
        elif report is not None and rtt_s <= self.scenario.routing.probing.max_rtt_s:
            client.balancer.probing.answered(rtt_s)
            unseen = max(0, each.in_flight - before)
            client.balancer.reported(each, report, self.now, probed=True, unseen=unseen)
        if request is not None:
            request.awaits -= 1
            if not request.awaits:
                self.begin(request)

    def attempt(self, request: Request) -> None:
        client, called = request.client, request.called
        if request.done:
            if called:
                client.line.done()
                self.wake(client)
            return
        if client.line and not called:
            client.line.join(request.born, request)
            return
        balancer, now = request.client.balancer, self.now
        mb, deadline = request.mb, request.born + self.scenario.timeout_s
        made = balancer.pick(
            _MODEL, tried=request.tried, now=now, rng=self.chance, mb=mb, deadline=deadline
        )
        late = isinstance(made, RetryAt) and made.until == inf
        waits = isinstance(made, RetryAt) and made.overloaded and not late
        request.called = False
        if called and not waits:
            client.line.done()
            self.wake(client)
        if late:
            self.end(request, error=True)
        elif isinstance(made, Pick):
            request.attempts += 1
            request.pick = made
            self.result.sent[int(made.endpoint.id)].append(now)
            self.at(now + self.half_s, self.reach, (request, made))
        else:
            request.tried = NO_WORKERS
            until = now if made is None else made.until
            if waits:
                client.line.join(request.born, request, again=called)
                self.at(until, self.wake, client)
            else:
                wait_s = self.scenario.routing.retries.backoff_s(request.attempts, self.chance)
                self.at(until + wait_s, self.attempt, request)

    def wake(self, client: Client) -> None:
        """There may be a place: let the request that has waited longest try."""
        if (request := client.call_next()) is not None:
            self.at(self.now, self.attempt, request)

    def time_out(self, now: float) -> None:
        waiting, oldest = self.waiting, now - self.scenario.timeout_s
        while waiting and (waiting[0].done or waiting[0].born <= oldest):
            request = waiting.popleft()
            if not request.done and now < inf:
                self.end(request, error=True)
                if request.pick is not None:
                    cut_off = self.cut_off(request, request.pick)
                    request.pick.release(Outcome.FAILED, now=now, rng=self.chance, cut_off=cut_off)

    def cut_off(self, request: Request, made: Pick) -> bool:
        """Whether a request that ends now is in its upload, which ends on a client's link."""
        link = request.client.link
        if link is not None and link.cancel(self.now, (request, made)):
            self.workers[int(made.endpoint.id)].rif -= 1
            self.watch(link)
        return request.started < made.at

    def end(self, request: Request, *, error: bool) -> None:
        request.done = True
        if request.born >= self.scenario.warmup_s:
            elapsed = self.scenario.timeout_s if error else self.now - request.born
            self.result.latencies.append(min(elapsed, self.scenario.timeout_s))
            self.result.arrivals.append(request.born)
            self.result.errors += error
        if self.scenario.at_once and self.now < self.scenario.duration_s:
            self.at(self.now, self.request, request.client)

    def answer(self, argument: Any) -> None:
        """An answer, or the end of a failed attempt, reaches the client."""
        request, made, outcome, report, worker_s, sent_mb = argument
        if request.done:
            return  # the client has given up
        request.pick = None
        client, config = request.client, self.scenario.routing
        answered = outcome is Outcome.ANSWERED
        if answered:
            client.seconds = ewma(client.seconds, self.now - made.at, _SMOOTHING)
            client.mb = ewma(client.mb, sent_mb, _SMOOTHING)
            if self.now - made.endpoint.load_report_at < config.probing.report_min_interval_s:
                report = None
        if report is not None:
            client.reported_at = self.now
        made.release(
            outcome,
            now=self.now,
            rng=self.chance,
            load_report=report,
            worker_s=worker_s,
            sent_mb=sent_mb,
            retry_after_s=request.retry_after_s,
            backpressure=True,
        )
        self.wake(client)
        if outcome is Outcome.OVERLOADED:
            self.result.retries += 1
            self.attempt(request)
            return
        if answered:
            self.end(request, error=self.now - request.born > self.scenario.timeout_s)
            return
        if request.attempts >= config.retries.max_attempts or not client.budget.spend(
            self.now, int(sent_mb * 1e6)
        ):
            self.end(request, error=True)
            return
        self.result.retries += 1
        request.tried |= {made.endpoint.id}
        self.attempt(request)

    # The worker

    def reach(self, argument: Any) -> None:
        """The headers of a request reach the worker."""
        request, made = argument
        worker = self.workers[int(made.endpoint.id)]
        if worker.mode != "up":
            outcome = Outcome.REFUSED if worker.mode == "refusing" else Outcome.FAILED
            delay_s = self.half_s + (_FAIL_FAST_S if outcome is Outcome.FAILED else 0.0)
            self.at(self.now + delay_s, self.answer, (request, made, outcome, None, None, 0.0))
        elif worker.refuses(request, made, self.scenario, self.now):
            answer = (request, made, Outcome.OVERLOADED, worker.report(self.now), None, 0.0)
            self.at(self.now + self.half_s, self.answer, answer)
        else:
            worker.rif += 1
            request.queue = max(1.0, worker.rif / worker.slots)
            link = request.client.link or worker.link
            link.add(self.now, request.mb, (request, made))
            self.watch(link)

    def watch(self, link: Link) -> None:
        """Schedule the end of the next upload, which others that come or end before change."""
        link.changes += 1
        ends_at = link.ends_at(self.now)
        if ends_at < inf:
            self.at(ends_at, self.end_upload, (link, link.changes))

    def end_upload(self, argument: Any) -> None:
        link, number = argument
        if number == link.changes:
            arrived = link.end(self.now)
            self.watch(link)
            self.uploaded(arrived)

    def uploaded(self, argument: Any) -> None:
        request, made = argument
        worker = self.workers[int(made.endpoint.id)]
        request.started = self.now
        if worker.batcher is None:
            worker.queue.append(argument)
        else:
            worker.batcher.submit(argument, cost=request.mb, now=self.now)
        self.work(worker)

    def work(self, worker: Worker) -> None:
        """Start images that there is a slot for."""
        speed = worker.speed * worker.factor
        if worker.batcher is None:
            for argument in worker.take(worker.slots - worker.busy):
                worker.busy += 1
                self.at(self.now + argument[0].work / speed, self.finish, (worker, [argument]))
            return
        while (batch := worker.batcher.poll(self.now)) is not None:
            run = [pending.item for pending in batch.items]
            took_s = self.scenario.batch_time_s([each[0].work for each in run]) / speed
            self.at(self.now + took_s, self.ran, (worker, run, batch, self.now))

    def ran(self, arguments: Any) -> None:
        worker, run, batch, began = arguments
        worker.batcher.complete(self.now, batch)
        alone_s = (self.now - began) * worker.batcher.sizes.alone_part(len(run))
        for argument in run:
            argument[0].alone_s = alone_s
            self.finished(worker, argument)
        self.work(worker)

    def finish(self, arguments: Any) -> None:
        worker, batch = arguments
        worker.busy -= 1
        for argument in batch:
            self.finished(worker, argument)
        self.work(worker)

    def finished(self, worker: Worker, argument: Any) -> None:
        request, made = argument
        worker.rif -= 1
        worker_s = worker.sample(request, self.now)
        up = worker.mode == "up"
        answer = (
            request,
            made,
            Outcome.ANSWERED if up else Outcome.FAILED,
            worker.report(self.now) if up else None,
            worker_s if up else None,
            request.mb,
        )
        self.at(self.now + self.half_s, self.answer, answer)


def simulate(scenario: Scenario) -> Result:
    """Simulate a scenario; the same scenario, with its seed, gives the same result."""
    return _Simulation(scenario).run()
