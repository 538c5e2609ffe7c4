import http.server
import json
import re
import socket
import threading
import time

import pytest

from edge.errors import InputError
from edge.runtimes.act import manifest
from edge.runtimes.act.executors import http as executor
from edge.runtimes.act.ran import ToolError


class Home(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        if self.path.startswith("/flood"):
            self.send_response(200)
            self.end_headers()
            try:
                while True:
                    self.wfile.write(b"x" * 65536)
            except OSError:
                return
        if self.path.startswith("/drip"):
            self.send_response(200)
            self.end_headers()
            try:
                for _ in range(100):
                    self.wfile.write(b"x")
                    time.sleep(0.1)
            except OSError:
                return
        if self.path == "/elsewhere":
            self.send_response(302)
            self.send_header("Location", "http://192.0.2.1/")
            self.end_headers()
            return
        self.answer()

    def do_POST(self):
        self.answer()

    def answer(self):
        body = self.rfile.read(int(self.headers.get("Content-Length", 0))).decode()
        data = json.dumps([self.command, self.path, body, self.headers.get("X-Key")]).encode()
        self.send_response(500 if "broken" in self.path else 404 if "nothing" in self.path else 200)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *about):
        pass


@pytest.fixture(scope="module")
def port():
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Home)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server.server_address[1]
    server.shutdown()


def tool(way, **about):
    data = {"description": "x", "risk": "read", "http": way, **about}
    return manifest.parse({"tools": {"a": data}}, folder="/", where="home.toml").tools["a"]


def test_arguments_are_in_the_path_the_query_and_the_body(port):
    get = tool(f"http://localhost:{port}/rooms/{{room}}?full=1")
    ran = executor.run(get, {"room": "a/../b c?", "n": 3}, None)
    assert json.loads(ran.output) == ["GET", "/rooms/a%2F..%2Fb%20c%3F?full=1&n=3", "", None]
    post = tool({"method": "POST", "url": f"http://127.0.0.1:{port}/rooms/{{room}}", "headers": {"X-Key": "k"}})
    ran = executor.run(post, {"room": "a", "state": "on", "level": 3}, None)
    assert json.loads(ran.output) == ["POST", "/rooms/a", '{"state": "on", "level": 3}', "k"]
    assert executor.describe(post.run, {"room": "a", "state": "on"}) == (
        f'POST http://127.0.0.1:{port}/rooms/a {{"state": "on"}}'
    )


@pytest.mark.parametrize("room", ["..", ".", ""])
def test_a_value_is_no_step_in_the_path(port, room):
    with pytest.raises(ToolError, match="is no name in a path"):
        executor.run(tool(f"http://127.0.0.1:{port}/rooms/{{room}}"), {"room": room}, None)


def test_a_value_that_the_url_needs(port):
    with pytest.raises(ToolError, match="the URL needs 'room', which was not given"):
        executor.run(tool(f"http://127.0.0.1:{port}/{{room}}"), {}, None)


@pytest.mark.parametrize(
    ("path", "words", "ended"),
    [
        ("nothing", "HTTP 404 Not Found", True),
        ("broken", "HTTP 500 Internal Server Error", False),
        ("elsewhere", r"it wants to be asked elsewhere \(HTTP 302\)", True),
        ("flood", "more than 1000 bytes of answer", False),
        ("drip", "it has not ended after 0.5 s", False),
    ],
)
def test_a_server_that_does_not_do_it(port, path, words, ended):
    ran = executor.run(tool(f"http://127.0.0.1:{port}/{path}", timeout_s=0.5, output_bytes=1000), {}, None)
    assert not ran.ok
    assert ran.ended == ended
    assert re.match(words, ran.why)


def _hang_up(server):
    server.accept()[0].close()


def test_a_server_that_is_not_there_or_breaks_off():
    with socket.create_server(("127.0.0.1", 0)) as server:
        free = server.getsockname()[1]
    assert executor.run(tool(f"http://127.0.0.1:{free}/"), {}, None).why.startswith("nothing answers at 127.0.0.1")
    with socket.create_server(("127.0.0.1", 0)) as server:
        threading.Thread(target=_hang_up, args=(server,), daemon=True).start()
        ran = executor.run(tool(f"http://127.0.0.1:{server.getsockname()[1]}/"), {}, None)
    assert ran.why.startswith("the server broke off: ")


@pytest.mark.parametrize(
    ("way", "words"),
    [
        (3, "http must be a URL, or a table with url"),
        ({"method": "GET"}, "http must be a URL, or a table with url"),
        ({"url": "http://127.0.0.1/", "body": ""}, "unknown key 'body' in http"),
        ({"url": "http://127.0.0.1/", "method": "TRACE"}, "method of http must be one of"),
        ({"url": "http://127.0.0.1/", "headers": {"A": "x\ny: z"}}, "headers of http must be plain ASCII"),
        ({"url": "http://127.0.0.1/", "headers": {"A": "x\ry: z"}}, "headers of http must be plain ASCII"),
        ({"url": "http://127.0.0.1/", "headers": {"A": "schlüssel"}}, "headers of http must be plain ASCII"),
        ({"url": "http://127.0.0.1/", "headers": {"A: b\r\nC": "x"}}, "headers of http must be plain ASCII"),
        ({"url": "http://127.0.0.1/", "headers": {"A": 1}}, "headers of http must be a table of texts"),
        ("http://127.0.0.1/küche/{room}?a=1 2", r"spells with %\n  for example /k%C3%BCche/{room}\?a=1%202"),
        ("https://127.0.0.1/", "is not on this machine"),
        ("http://example.org/", "is not on this machine"),
        ("http://127.0.0.1.example.org/", "is not on this machine"),
        ("http://127.0.0.1@example.org/", "is not on this machine"),
        ("http://example.org#@127.0.0.1/", "is not on this machine"),
        ("http://{host}/", "is not on this machine"),
        ("http://169.254.169.254/", "is not on this machine"),
        ("http://127.0.0.1:port/", "is no URL"),
    ],
)
def test_what_is_not_on_this_machine_is_never_asked(way, words):
    with pytest.raises(InputError, match=words):
        tool(way)
