"""`python -m benchmarks.client.tiny_worker`: a worker that costs next to nothing.

Prints its port. Answers every POST with one label and every GET with a load report.
"""

from __future__ import annotations

import asyncio

from fingerpost.registry import LOAD_HEADER, LoadReport, WorkerState

_ANSWER = (
    b'{"model":"digits","version":"1","results":[{"name":"data","predictions":[["a",0.75]],'
    b'"timings_ms":{"decode":0.1,"queue":0.1,"inference":0.1}}]}'
)


class TinyWorker(asyncio.Protocol):
    """One connection."""

    seq = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """See `asyncio.Protocol`."""
        self.transport = transport
        self.head = b""
        self.left = -1

    def data_received(self, data: bytes) -> None:
        """See `asyncio.Protocol`."""
        if self.left < 0:
            self.head += data
            end = self.head.find(b"\r\n\r\n")
            if end < 0:
                return
            fields = self.head[:end].lower()
            at = fields.find(b"content-length:")
            size = int(fields[at + 15 :].split(b"\r\n", 1)[0]) if at >= 0 else 0
            self.asks_load = fields.startswith(b"get")
            self.left = size - (len(self.head) - end - 4)
            self.head = b""
        else:
            self.left -= len(data)
        if self.left == 0:
            self.left = -1
            self.answer()

    def answer(self) -> None:
        """Answer the request that has come whole."""
        TinyWorker.seq += 1
        report = LoadReport(rif=0, slots=16, state=WorkerState.READY, boot_id=5, seq=TinyWorker.seq)
        body = _ANSWER
        if self.asks_load:
            body = b'{"rif":0,"slots":16,"state":1,"boot_id":5,"seq":%d}' % TinyWorker.seq
        self.transport.write(
            b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n%s: %s\r\n"
            b"Content-Length: %d\r\n\r\n%s"
            % (LOAD_HEADER.encode(), report.to_header().encode(), len(body), body)
        )


async def main() -> None:
    """Serve until it is ended."""
    server = await asyncio.get_running_loop().create_server(TinyWorker, "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main())
