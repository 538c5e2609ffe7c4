"""How fast memory is read, as `edge bench` and `edge predict` measure it.

python -m benchmarks.contestants.bandwidth THREADS
"""

from __future__ import annotations

import json
import sys

from edge.runtimes.meter import read_bandwidth_bytes_per_s

if __name__ == "__main__":
    print(json.dumps({"read_bandwidth_bytes_per_s": read_bandwidth_bytes_per_s(int(sys.argv[1]))}))
