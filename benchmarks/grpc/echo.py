"""`python -m benchmarks.grpc.echo PORT`: a server of grpcio that reads a message and answers 200 B.

Nothing is parsed, checked or counted: what is left is what grpcio itself costs.
"""

from __future__ import annotations

import sys
from typing import Any, Final

import grpc

from fingerpost.worker.eventloop import run_main

__all__ = ["METHOD"]

METHOD: Final = "/bare.Echo/Echo"
# As many bytes as a worker's answer and its load report have.
_ANSWER: Final = bytes(200)


async def _serve(port: int) -> None:
    async def echo(_data: bytes, _context: Any) -> bytes:
        return _ANSWER

    server = grpc.aio.server(options=[("grpc.max_receive_message_length", -1)])
    service, method = METHOD.strip("/").split("/")
    handlers = {method: grpc.unary_unary_rpc_method_handler(echo)}
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, handlers),))
    server.add_insecure_port(f"127.0.0.1:{port}")
    await server.start()
    await server.wait_for_termination()


if __name__ == "__main__":
    run_main(_serve(int(sys.argv[1])))
