"""`python -m edge.serve BUNDLE`: as `edge serve`, for devices that have no other verb."""

from __future__ import annotations

import argparse
import signal
import sys

from edge.errors import EdgeError
from edge.serve import start


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m edge.serve", description=__doc__)
    start.add_arguments(parser)
    try:
        return start.run(parser.parse_args())
    except EdgeError as err:
        sys.stderr.write(f"edge: {err}\n")
        return err.exit_code
    except KeyboardInterrupt:  # while the models are loaded
        sys.stderr.write("edge: stopped\n")
        return 128 + signal.SIGINT
    except OSError as err:
        where = f": {err.filename}" if err.filename else ""
        sys.stderr.write(f"edge: {err.strerror or err}{where}\n")
        return EdgeError.exit_code


if __name__ == "__main__":
    sys.exit(main())
