"""Triton's client of gRPC, unmodified, by TLS: `secure_client.py TARGET IMAGE LEASE`.

For each line that it reads it sends the image once to the model of the target, with the lease that
the file LEASE has then, and prints what came of it.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import tritonclient.grpc as triton
from tritonclient.utils import InferenceServerException


class Lease(grpc.AuthMetadataPlugin):
    """Sends what a file has now."""

    def __init__(self, file: Path) -> None:
        self._file = file

    def __call__(self, context: Any, callback: Any) -> None:
        callback((("authorization", f"Bearer {self._file.read_text().strip()}"),), None)


def main(target: str, image: str, lease: str) -> None:
    # Never without TLS: what the proxy says of TLS replaces this, nothing else does.
    credentials = grpc.xds_channel_credentials(grpc.ssl_channel_credentials())
    call = grpc.metadata_call_credentials(Lease(Path(lease)))
    both = grpc.composite_channel_credentials(credentials, call)
    client = triton.InferenceServerClient(target, creds=both)
    data = triton.InferInput("image", [1], "BYTES")
    data.set_data_from_numpy(np.array([Path(image).read_bytes()], object))
    for _ in sys.stdin:
        try:
            result = client.infer(target.rpartition("/")[2], [data], client_timeout=10.0)
            scores = result.as_numpy("scores") if result is not None else None
            told = "no scores" if scores is None else str(scores.argmax())
        except InferenceServerException as error:
            told = repr(str(error))
        sys.stdout.write(told + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main(*sys.argv[1:])
