"""From the command line to a server that runs."""

from __future__ import annotations

import argparse
import ipaddress
import logging
import os
import secrets
import sys
from pathlib import Path

from edge import profile
from edge.errors import InputError, UsageError, require

PORT = 8080
_SHORTEST_TOKEN = 16
_MOST_PARALLEL = 64
_KEEP_MB = 256


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("bundles", metavar="BUNDLE", type=Path, nargs="+", help="a folder that edge export made")
    group = parser.add_argument_group("where it listens, and for whom")
    group.add_argument(
        "--host", default="127.0.0.1", help="default: 127.0.0.1, this machine alone; 0.0.0.0 is the network"
    )
    group.add_argument("--port", type=int, default=PORT, metavar="N", help=f"default: {PORT}; 0 takes a free one")
    group.add_argument("--token", metavar="TEXT", help="what clients must give as their API key (or $EDGE_TOKEN)")
    group.add_argument("--token-file", type=Path, metavar="FILE", help="read it from there; made if it is not there")
    group.add_argument(
        "--allow-host", action="append", default=[], metavar="NAME", help="a name that this machine is reached by"
    )
    group.add_argument(
        "--allow-origin", action="append", default=[], metavar="ORIGIN", help="a web page elsewhere that may ask here"
    )
    group = parser.add_argument_group("how much at once")
    group.add_argument(
        "--parallel", type=int, default=1, metavar="N", help="answers at the same time, for each bundle (1)"
    )
    group.add_argument(
        "--keep-mb", type=int, metavar="N",
        help=f"memory for conversations that another took the place of ({_KEEP_MB}, or an eighth of what is free)",
    )  # fmt: skip
    group.add_argument(
        "--keep-in", type=Path, metavar="FOLDER",
        help="write them there when it stops, and go on with them when it starts",
    )  # fmt: skip
    group.add_argument("--queue", type=int, default=64, metavar="N", help="requests that may wait (64); others get 429")
    group.add_argument("--max-tokens", type=int, default=1024, metavar="N", help="where none is asked for (1024)")
    group.add_argument("--grace", type=float, default=10.0, metavar="S", help="seconds to finish when stopped (10)")
    group = parser.add_argument_group("how the models run")
    group.add_argument("--context", type=int, metavar="N", help="tokens to hold (default: each bundle's)")
    group.add_argument("--threads", type=int, metavar="N", help="default: what is fastest here, tried once")
    group.add_argument("--no-check", action="store_true", help="do not compare the files with the manifest")
    group.add_argument("--no-lookup", action="store_true", help="guess nothing ahead; answers are the same either way")
    group.add_argument("--draft", metavar="BUNDLE", type=Path, help="a smaller model that guesses ahead, where it pays")


def run(args: argparse.Namespace) -> int:
    """Serve until SIGTERM or Ctrl-C."""
    require("starlette", extra="serve", purpose="edge serve")
    require("uvicorn", extra="serve", purpose="edge serve")
    for name, low, high in (("parallel", 1, _MOST_PARALLEL), ("queue", 0, 10_000), ("max_tokens", 1, 1 << 20)):
        if not low <= getattr(args, name) <= high:
            raise UsageError(f"--{name.replace('_', '-')} must be from {low} to {high}")
    if args.draft is not None and (args.no_lookup or len(args.bundles) > 1):
        raise UsageError("--draft guesses ahead for one bundle" + (", and --no-lookup for none" * args.no_lookup))
    if args.keep_mb is not None and not 0 <= args.keep_mb <= 1 << 20:
        raise UsageError("--keep-mb must be from 0 to 1048576")
    if args.keep_in is not None:
        _private(args.keep_in, args.keep_mb)
    if not 0 <= args.port < 1 << 16:
        raise UsageError("--port must be from 0 to 65535")
    if not 0 <= args.grace <= 3600:
        raise UsageError("--grace must be from 0 to 3600 seconds")
    loopback = is_loopback(args.host)
    token, made = _token(args, needed=not loopback)

    import asyncio

    from edge.runtimes import threads
    from edge.serve import app, door, guard
    from edge.serve.house import House
    from edge.serve.metrics import Metrics
    from edge.serve.turns import Turns

    logging.basicConfig(level=logging.WARNING, format="edge: %(message)s", stream=sys.stderr)
    # Before the models: a port that is taken should not cost a minute of loading.
    listener = door.listen(args.host, args.port)
    door.make_room()
    metrics = Metrics()
    house = House(Turns(waiting=args.queue, ended=metrics.answer))
    metrics.watch(house.turns)
    try:
        if args.threads is None:
            for folder in args.bundles:
                threads.once(folder, check=not args.no_check)
        house.open(
            args.bundles, parallel=args.parallel, threads=args.threads, context_length=args.context,
            check=not args.no_check, max_tokens=args.max_tokens, looks_up=not args.no_lookup,
            draft=args.draft, shelf_bytes=_shelf_bytes(args) // len(args.bundles), keep_in=args.keep_in,
        )  # fmt: skip
        guarded = guard.Guard(
            app.application(house, metrics), loopback=loopback, token=token,
            hosts=[args.host, *args.allow_host], origins=args.allow_origin,
        )  # fmt: skip
        port = listener.getsockname()[1]

        def ready() -> None:
            for served in house.served.values():
                if not served.bundle.proven:
                    sys.stderr.write(f"edge: {served.name} is unproven: it was never compared with its source\n")
            where = _address(args.host, port)
            lines = [f"serving    {', '.join(house.served)}", f"chat page  {where}/", f"API        {where}/v1"]
            if made:
                lines = [lines[0], f"{lines[1]}#token={token}", lines[2], f"token      {token}"]
            sys.stdout.write("\n".join(lines) + "\n")
            sys.stdout.flush()

        server = door.Server(guarded, house.turns, grace_s=args.grace, ready=ready)
        asyncio.run(server.serve(sockets=[listener]))
    finally:
        listener.close()
        house.close()
    return 0


def _private(folder: Path, keep_mb: int | None) -> None:
    """Make the folder, for this user alone. `UsageError` for one that others could put something into."""
    if keep_mb == 0:
        raise UsageError("--keep-in keeps what --keep-mb has room for, and that is 0")
    try:
        folder.mkdir(mode=0o700, exist_ok=True)
    except OSError as err:
        raise UsageError(f"{folder} cannot be a folder for conversations: {err.strerror}") from None
    found = folder.stat()
    if found.st_uid != os.getuid() or found.st_mode & 0o022:
        raise UsageError(f"others can write to {folder}", hint=f"chmod 700 {folder}, or name another")


def _shelf_bytes(args: argparse.Namespace) -> int:
    """For all bundles together."""
    if args.keep_mb is not None:
        return int(args.keep_mb) * 1_000_000
    free = profile.conditions().available_bytes
    return _KEEP_MB * 1_000_000 if free is None else min(_KEEP_MB * 1_000_000, free // 8)


def is_loopback(host: str) -> bool:
    """Whether an address is heard on this machine alone."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def _token(args: argparse.Namespace, *, needed: bool) -> tuple[str | None, bool]:
    """The token, and whether it was made just now, for this run."""
    given = args.token if args.token is not None else os.environ.get("EDGE_TOKEN") or None
    if args.token_file is not None:
        if given is not None:
            raise UsageError("a token was given twice: by itself, and in a file")
        given = _from_file(args.token_file)
    if given is None:
        return (secrets.token_urlsafe(24), True) if needed else (None, False)
    if len(given) < _SHORTEST_TOKEN or not given.isascii() or not given.isprintable() or " " in given:
        raise UsageError(
            f"a token has at least {_SHORTEST_TOKEN} letters, digits and signs, and no blanks",
            hint="leave it out, and one is made",
        )
    return given, False


def _from_file(path: Path) -> str:
    try:
        with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="ascii") as f:
            f.write(secrets.token_urlsafe(24) + "\n")
    except FileExistsError:
        pass
    except FileNotFoundError as err:
        raise UsageError(f"{path.parent} is no folder that a token could be kept in") from err
    text = path.read_bytes()[:4096].decode("utf-8", errors="replace").strip()
    if not text:
        raise InputError(f"{path} holds no token", hint="remove it, and one is made")
    return text


def _address(host: str, port: int) -> str:
    """Where a browser finds it: for "everywhere", by this machine's name."""
    import socket

    if host in ("0.0.0.0", "::"):
        host = f"{socket.gethostname()}"
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
