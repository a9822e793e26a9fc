"""`make bench`: all benchmarks in turn; `python -m benchmarks NAME...` runs some of them."""

from __future__ import annotations

import argparse
import os
import subprocess
import sys

from benchmarks.harness.environments import ROOT

# Name, module, and what it measures.
_ALL = {
    "bandwidth": ("benchmarks.bandwidth", "bytes past a balancer and through it; needs root"),
    "decoding": ("benchmarks.decoding", "JPEG decoders"),
    "worker": ("benchmarks.worker.mobilenet", "a real network: mosec, LitServe, the limit"),
    "shell": ("benchmarks.worker.nothing", "a model that does nothing: mosec, BentoML, Ray, ..."),
    "load": ("benchmarks.worker.load_latency", "GET /load while the model is saturated"),
    "switch": ("benchmarks.worker.version_switch", "p99 of other models during a version switch"),
    "client": ("benchmarks.client", "the client against a bare aiohttp loop"),
    "routing": ("benchmarks.routing", "routing policies, simulated"),
}


def main() -> int:
    """Run them; 1 if a goal was missed or a benchmark could not run."""
    listed = "\n".join(f"  {name:10} {text}" for name, (_, text) in _ALL.items())
    parser = argparse.ArgumentParser(
        description=f"{__doc__}\n\n{listed}", formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("names", nargs="*", choices=[*_ALL, []], metavar="NAME")
    names = parser.parse_args().names or [
        name for name in _ALL if name != "bandwidth" or not os.geteuid()
    ]
    missed = []
    for name in names:
        print(f"== {name}: {_ALL[name][1]}", flush=True)
        run = subprocess.run([sys.executable, "-m", _ALL[name][0]], cwd=ROOT, check=False)
        if run.returncode:
            missed.append(name)
    if missed:
        print(f"not all as claimed: {', '.join(missed)}")
    return 1 if missed else 0


if __name__ == "__main__":
    raise SystemExit(main())
