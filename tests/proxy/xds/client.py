"""A program that knows nothing of Fingerpost: `client.py TARGET`, by gRPC with xDS.

For each number that it reads it calls the target so often, and prints, as JSON, how often each
worker answered, and the errors.
"""

from __future__ import annotations

import json
import sys
from collections import Counter

import grpc


def main(target: str) -> None:
    with grpc.insecure_channel(target) as channel:
        call = channel.unary_unary("/echo.Echo/Say")
        for line in sys.stdin:
            shares: Counter[str] = Counter()
            errors: Counter[str] = Counter()
            for _ in range(int(line)):
                try:
                    shares[call(b"?", timeout=20).decode()] += 1
                except grpc.RpcError as error:
                    errors[error.code().name] += 1
            sys.stdout.write(json.dumps({"shares": shares, "errors": errors}) + "\n")
            sys.stdout.flush()


if __name__ == "__main__":
    main(sys.argv[1])
