"""argv -> verb; the only place that turns errors into exit codes.

A verb is one file in `edge/commands/` with a docstring (its help), `add_arguments(parser)`
and `run(args) -> int`.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
from collections.abc import Sequence

import edge
from edge.errors import EdgeError, InputError
from edge.find import load, names

_EXIT_CODES = """exit codes:
  0  done
  1  failed
  2  the command line makes no sense
  3  the quality gate or the budget is not met; nothing was published
  4  the device cannot be reached, or is unfit
"""


def parser() -> argparse.ArgumentParser:
    """The whole command line; a new file in `edge/commands/` is a new verb."""
    top = argparse.ArgumentParser(
        prog="edge",
        description="From a checkpoint to a proven bundle that runs offline on a device.",
        epilog=_EXIT_CODES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    top.add_argument("--version", action="version", version=f"edge {edge.__version__}")
    verbs = top.add_subparsers(dest="verb", metavar="VERB", title="verbs", required=True)
    for name in names("edge.commands"):
        module = load("edge.commands", name)
        first, _, rest = (module.__doc__ or "").strip().partition("\n")
        verb = verbs.add_parser(
            name,
            help=first.rstrip("."),
            description=f"{first}\n{rest}",
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        module.add_arguments(verb)
        verb.set_defaults(run=module.run)
    return top


def main(argv: Sequence[str] | None = None) -> int:
    """Run one verb and return its exit code; only a bug of ours gives a traceback."""
    args = parser().parse_args(argv)
    # A closed stdout (edge ... | head) ends the program quietly, as every filter does.
    try:
        code: int = args.run(args)
        sys.stdout.flush()
        return code
    except EdgeError as err:
        print(f"edge: {err}", file=sys.stderr)
        return err.exit_code
    except KeyboardInterrupt:
        print("edge: stopped", file=sys.stderr)
        return 128 + signal.SIGINT
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 128 + signal.SIGPIPE
    except OSError as err:
        # A full disk, a missing permission, a name too long: the system's own words are clear.
        where = f": {err.filename}" if err.filename else ""
        print(f"edge: {err.strerror or err}{where}", file=sys.stderr)
        return InputError.exit_code
    except MemoryError:
        print("edge: out of memory\n  close other programs, or choose a smaller model or context", file=sys.stderr)
        return EdgeError.exit_code
