"""'Where Fingerpost loses': by hand; what rests on figures stands there while they bear it out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

    from benchmarks.document.records import Record

__all__ = ["losses"]

_ALWAYS = """\
- **Clients must reach the workers.** Where they cannot (NAT, firewalls, one public address) images
  go through the relay, which is a balancer with one link for all. HAProxy and nginx are older,
  written in C, and better balancers.
- **One worker, or little traffic.** If one link carries everything, Fingerpost brings no advantage,
  and a balancer is easier to understand.
- **Plain clients pay for each image.** `curl` and the redirect look up and connect again for each
  image. Only the library keeps connections, spreads images by load and tries other workers.
- **Clients decide independently of each other.** A central queue sees every request; clients
  with load reports only come close to that.
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Behind:
    """A sentence that stands while `rival` has the better figure in `column`."""

    record: str
    ours: str
    rival: str
    column: str
    less_is_better: bool = False
    text: str


_BEHIND = (
    _Behind(
        record="worker-nothing", ours="fingerpost", rival="mosec", column="20 KB/s",
        text="**Small bodies.** mosec, whose HTTP side is written in Rust, answers more requests "
        "of 20 KB a second if the model costs nothing.",
    ),
    _Behind(
        record="worker-nothing", ours="fingerpost", rival="bare aiohttp", column="20 KB/s",
        text="**A handler of your own.** A bare aiohttp handler, without batching, limits, load "
        "reports, deadlines or metrics, is faster than the worker with small bodies.",
    ),
    _Behind(
        record="client-cost", ours="20 KB: classify", rival="20 KB: bare", column="images/s",
        text="**A loop of your own.** A bare aiohttp loop at one known worker sends more small "
        "images a second than the client.",
    ),
    _Behind(
        record="lookups", ours="Fingerpost, one proxy", rival="seaport", column="CPU us",
        less_is_better=True,
        text="**A lookup in Node.js costs less** processor time than one by the proxy, which is "
        "Python: it takes a proxy on a second core to make up for it.",
    ),
    _Behind(
        record="routing-real", ours="hot-cold", rival="HAProxy leastconn, maxconn 1",
        column="open p99 ms", less_is_better=True,
        text="**Few workers that take one request at a time.** HAProxy with a limit of one "
        "request for each holds requests back until a worker is free, which no client can know: "
        "its p99 is lower.",
    ),
    _Behind(
        record="decoding", ours="fingerpost", rival="opencv", column="1600 x 1200",
        less_is_better=True,
        text="**Decoding.** OpenCV decodes in a little less time than Pillow in draft mode; [why "
        "Pillow](decisions/0010-decoding.md).",
    ),
    _Behind(
        record="growth", ours="100 workers, 10,000 clients", rival="100 workers, 1,000 clients",
        column="all notified s", less_is_better=True,
        text="**Many workers, many clients.** Each client is sent the whole list when anything "
        "changes, so the time until all are notified grows with both: use several proxies.",
    ),
)  # fmt: skip


def losses(records: Mapping[str, Record]) -> str:
    """The section, with what these records bear out."""
    behind = "".join(f"- {each.text}\n" for each in _BEHIND if _holds(each, records))
    return f"## Where Fingerpost loses\n\n{_ALWAYS}{behind}"


def _holds(each: _Behind, records: Mapping[str, Record]) -> bool:
    figures = records[each.record].figures if each.record in records else {}
    if each.ours not in figures or each.rival not in figures:
        return False
    ours, rivals = figures[each.ours][each.column], figures[each.rival][each.column]
    return rivals < ours if each.less_is_better else rivals > ours
