"""MCP servers, spoken to over their standard input and output with the protocol's own SDK, and held in bounds.

A server that dies, hangs or floods ends a call, not the conversation; it is started again for the next one.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import threading
from concurrent.futures import CancelledError, Future
from concurrent.futures import TimeoutError as Late
from typing import Any

import anyio
import mcp
from mcp import types
from mcp.shared.exceptions import McpError
from mcp.shared.message import SessionMessage

from edge.runtimes.act import program
from edge.runtimes.act.executors.mcp import Served
from edge.runtimes.act.ran import Ran, ToolError
from edge.runtimes.act.words import cut

_START_S = 30.0
_END_S = 5.0
# A message is read whole before it is understood; one that has no end must not fill the memory.
_MESSAGE_BYTES = 8 << 20
_PAGES = 100


class Server:
    """A running server. Raises `ToolError` when it cannot be started, or does not speak the protocol."""

    def __init__(self, spec: Served) -> None:
        self._spec = spec
        self._gone = False
        self._over = asyncio.Event()
        self._loop = asyncio.new_event_loop()
        self._ready: Future[None] = Future()
        self._thread = threading.Thread(target=self._live, daemon=True)
        self._thread.start()
        try:
            self._ready.result(_START_S)
        except Late:
            self.close()
            raise ToolError(f"the MCP server {spec.server} has not started within {_START_S:g} s") from None
        except (McpError, OSError, BaseExceptionGroup) as err:
            self.close()
            raise ToolError(f"the MCP server {spec.server} could not be started: {_said(err)}") from err

    @property
    def alive(self) -> bool:
        return self._thread.is_alive() and not self._gone

    def __enter__(self) -> Server:
        return self

    def __exit__(self, *about: object) -> None:
        self.close()

    def close(self) -> None:
        """End the server and all that it started."""
        self._gone = True
        if self._thread.is_alive():
            try:
                self._loop.call_soon_threadsafe(self._over.set)
            except RuntimeError:
                return  # the loop has ended meanwhile
            self._thread.join(_END_S)

    def tools(self) -> list[types.Tool]:
        """What it offered when it was started."""
        return list(self._offered.values())

    def call(self, tool: str, arguments: dict[str, Any], *, timeout_s: float, output_bytes: int) -> Ran:
        """Call one of its tools, and wait for it no longer than that."""
        if tool not in self._offered:
            offered = ", ".join(sorted(self._offered)[:20]) or "none"
            raise ToolError(f"the MCP server {self._spec.server} has no tool {tool!r}; it has: {offered}")
        waiting = asyncio.run_coroutine_threadsafe(self._asked(tool, arguments), self._loop)
        name = f"the MCP server {self._spec.server}"
        try:
            result = waiting.result(timeout_s)
        except Late:
            waiting.cancel()
            self.close()  # whatever it is busy with, it is not to be asked anything else
            return Ran(False, b"", f"{name} has not answered within {timeout_s:g} s, and was ended", ended=False)
        except McpError as err:
            return Ran(False, b"", f"{name} says: {err.error.message}")
        except (ConnectionError, CancelledError):
            return Ran(False, b"", f"{name} has died", ended=False)
        # The SDK raises what it likes for an answer that is none: of another form, or not of the tool's own schema.
        except Exception as err:  # noqa: BLE001
            first = _said(err).partition("\n")[0]
            return Ran(False, b"", f"{name} gave no sound answer: {first}", ended=False)
        output = "\n".join(_text(part) for part in result.content).encode("utf-8", "replace")
        if len(output) > output_bytes:
            output = cut(output, output_bytes) + b"\n(cut off here)"
        return Ran(not result.isError, output, "it says that it failed" if result.isError else "")

    async def _asked(self, tool: str, arguments: dict[str, Any]) -> types.CallToolResult:
        """The answer; `ConnectionError` when the server ends before it."""
        asked = asyncio.ensure_future(self._session.call_tool(tool, arguments))
        ended = asyncio.ensure_future(self._over.wait())
        await asyncio.wait({asked, ended}, return_when=asyncio.FIRST_COMPLETED)
        ended.cancel()
        if not asked.done():
            asked.cancel()
            raise ConnectionError
        return asked.result()

    def _live(self) -> None:
        asyncio.set_event_loop(self._loop)
        try:
            self._loop.run_until_complete(self._main())
        except BaseException as err:  # noqa: BLE001 - handed to whoever waits for it
            if not self._ready.done():
                self._ready.set_exception(err)
        finally:
            self._gone = True
            left = asyncio.all_tasks(self._loop)
            for task in left:
                task.cancel()
            self._loop.run_until_complete(asyncio.gather(*left, return_exceptions=True))
            self._loop.close()

    async def _main(self) -> None:
        spec = self._spec
        found = spec.command[0] if "/" in spec.command[0] else shutil.which(spec.command[0])
        if found is None or not os.path.isfile(found):
            raise FileNotFoundError(2, f"the program {spec.command[0]} is not installed here")
        launch, bounds = program.launched(
            [os.path.abspath(found), *spec.command[1:]], paths=spec.paths, network=spec.network,
            memory_bytes=spec.memory_bytes, cpu_s=1 << 31, env=dict(spec.env),
        )  # fmt: skip
        process = await asyncio.create_subprocess_exec(
            *launch, "-1", stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.DEVNULL, env={}, start_new_session=True, limit=_MESSAGE_BYTES,
        )  # fmt: skip
        assert process.stdin
        process.stdin.write(bounds)
        try:
            speaking = asyncio.ensure_future(self._spoken_to(process))
            ended = asyncio.ensure_future(self._over.wait())
            await asyncio.wait({speaking, ended}, return_when=asyncio.FIRST_COMPLETED)
            if not self._ready.done():
                speaking.cancel()  # it was given up before it said anything
            await asyncio.wait({speaking}, timeout=_END_S)
            ended.cancel()
            if speaking.done():
                speaking.result()
        finally:
            if process.returncode is None:
                process.terminate()
                try:
                    await asyncio.wait_for(process.wait(), _END_S)
                except TimeoutError:
                    process.kill()

    async def _spoken_to(self, process: asyncio.subprocess.Process) -> None:
        heard, hear = anyio.create_memory_object_stream[SessionMessage | Exception](16)
        say, said = anyio.create_memory_object_stream[SessionMessage](16)
        async with anyio.create_task_group() as group:
            group.start_soon(self._hearing, process, heard)
            group.start_soon(_saying, process, said)
            async with mcp.ClientSession(hear, say) as session:
                await session.initialize()
                self._session = session
                self._offered = {tool.name: tool for tool in await _listed(session)}
                self._ready.set_result(None)
                await self._over.wait()
            group.cancel_scope.cancel()

    async def _hearing(self, process: asyncio.subprocess.Process, heard: Any) -> None:
        assert process.stdout
        async with heard:
            while True:
                try:
                    line = await process.stdout.readline()
                except ValueError:
                    break  # a message longer than any
                if not line.endswith(b"\n"):
                    break
                try:
                    message = types.JSONRPCMessage.model_validate_json(line)
                except ValueError:
                    continue  # what is no message is somebody's print
                await heard.send(SessionMessage(message))
            self._gone = True
        self._over.set()


async def _listed(session: mcp.ClientSession) -> list[types.Tool]:
    """All tools, page by page; a list that has no end is cut."""
    found: list[types.Tool] = []
    page = await session.list_tools()
    for _ in range(_PAGES):
        found += page.tools
        if not page.nextCursor:
            break
        page = await session.list_tools(page.nextCursor)
    return found


async def _saying(process: asyncio.subprocess.Process, said: Any) -> None:
    assert process.stdin
    async with said:
        async for message in said:
            text = message.message.model_dump_json(by_alias=True, exclude_none=True)
            process.stdin.write(text.encode() + b"\n")
            try:
                await process.stdin.drain()
            except OSError:
                return  # it does not listen any more; that it is gone is heard


def _text(part: Any) -> str:
    """A part of an answer as text; what is none is named."""
    if isinstance(part, types.TextContent):
        return part.text
    if isinstance(part, types.EmbeddedResource) and isinstance(part.resource, types.TextResourceContents):
        return part.resource.text
    kind = getattr(part, "mimeType", None) or part.type
    return f"({kind}, which is no text)"


def _said(err: BaseException) -> str:
    while isinstance(err, BaseExceptionGroup):
        err = err.exceptions[0]
    if isinstance(err, McpError):
        return err.error.message
    return getattr(err, "strerror", None) or str(err) or type(err).__name__
