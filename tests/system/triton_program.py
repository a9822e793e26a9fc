"""A program with Triton's client of gRPC, unmodified: `triton_program.py TARGET IMAGE`.

For each number that it reads, it sends the image so often, and prints what came of it as JSON.
"""

from __future__ import annotations

import json
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import tritonclient.grpc as triton
from tritonclient.utils import InferenceServerException


def main(target: str, image: str) -> None:
    client = triton.InferenceServerClient(target)
    data = triton.InferInput("image", [1], "BYTES")
    data.set_data_from_numpy(np.array([Path(image).read_bytes()], object))
    for line in sys.stdin:
        told: Counter[str] = Counter()
        for _ in range(int(line)):
            try:
                result = client.infer("colours", [data])
                scores = result.as_numpy("scores") if result is not None else None
                told[str(scores.argmax()) if scores is not None else "no scores"] += 1
            except InferenceServerException as error:
                told[str(error)] += 1
        sys.stdout.write(json.dumps(told) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2])
