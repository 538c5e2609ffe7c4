"""A server made with the protocol's own SDK: what a user would bring."""

import os
import sys

from mcp.server.fastmcp import FastMCP
from mcp.server.fastmcp.utilities.types import Image

server = FastMCP("notes")


@server.tool()
def add(a: int, b: int) -> str:
    """Add two numbers."""
    return str(a + b)


@server.tool()
def fail() -> str:
    """Fail."""
    raise ValueError("no ink")


@server.tool()
def picture() -> Image:
    """A picture."""
    return Image(data=b"\x89PNG", format="png")


@server.tool()
def reach(path: str) -> str:
    """What a file holds, or why it cannot be read."""
    try:
        with open(path) as file:
            return file.read()
    except OSError as err:
        return str(err.strerror)


@server.tool()
def die() -> str:
    """End without a word."""
    os._exit(3)


if __name__ == "__main__":
    print("somebody's print, which is no message", flush=True)
    sys.stderr.write("x" * 200_000)
    server.run("stdio")
