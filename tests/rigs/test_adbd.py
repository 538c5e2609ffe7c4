"""The rig itself, asked by the stock client: what it shows is what a phone would."""

from __future__ import annotations

import http.server
import os
import subprocess
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.rigs.adbd import client, tree
from tests.rigs.adbd.client import Adb
from tests.rigs.adbd.device import Device

pytestmark = pytest.mark.rig
HOME = "/data/local/tmp"
CHUNK = 64 << 10  # what one DATA of a push carries
BLOCK = os.urandom(CHUNK)


@pytest.fixture(scope="module")
def adb(tmp_path_factory):
    if reason := tree.missing() or client.missing():
        pytest.skip(reason)
    with Adb(tmp_path_factory.mktemp("adb")) as adb:
        yield adb


@pytest.fixture
def device(tmp_path, adb):
    with Device(tree.Tree(tmp_path / "tree")) as device:
        adb("connect", device.serial)
        yield device
        adb("disconnect", device.serial)


def on(device, adb, *words, **options):
    return adb("-s", device.serial, *words, **options)


def test_commands_have_two_outputs_and_an_exit_code(device, adb):
    done = on(device, adb, "shell", "echo out; echo err >&2; exit 7")
    assert (done.stdout, done.stderr, done.returncode) == ("out\n", "err\n", 7)
    assert on(device, adb, "shell", "kill -SEGV $$").returncode == 128 + 11


def test_commands_are_those_of_a_phone_and_not_of_the_host(device, adb):
    seen = on(device, adb, "shell", "id -u; getprop ro.product.model; ls /usr; cat /proc/cpuinfo").stdout
    assert seen.startswith(f"{0 if os.geteuid() else 2000}\nEdge Test Phone\n")
    assert "asimddp" in seen
    assert "vendor_id" not in seen
    assert on(device, adb, "shell", "python3").returncode == 127


def test_what_a_command_reads_arrives_byte_for_byte(device, adb):
    data = os.urandom(1 << 20)
    done = adb.raw("-s", device.serial, "shell", "-T", f"cat > {HOME}/in; cat {HOME}/in", input=data)
    assert done.stdout == data
    done = adb.raw("-s", device.serial, "exec-out", f"cat {HOME}/in; echo err >&2")
    assert done.stdout == data + b"err\n"  # exec has one output only


def test_a_terminal_is_one(device, adb):
    ours, theirs = os.openpty()
    done = subprocess.run(
        ["adb", "-s", device.serial, "shell", "-t", "[ -t 1 ] && exit 5"],
        env={**os.environ, **adb.environment}, stdin=theirs, capture_output=True, timeout=30,
    )  # fmt: skip
    os.close(ours)
    os.close(theirs)
    assert done.returncode == 5


def test_eight_commands_at_once(device, adb):
    with ThreadPoolExecutor(8) as pool:
        codes = pool.map(lambda n: on(device, adb, "shell", f"sleep 0.1; exit {n}").returncode, range(8))
    assert list(codes) == list(range(8))


def test_a_hung_up_host_ends_its_command(device, adb):
    asking = subprocess.Popen(
        ["adb", "-s", device.serial, "shell", "sleep 77"], env={**os.environ, **adb.environment}, stdin=subprocess.PIPE
    )
    assert tree.wait_until(lambda: on(device, adb, "shell", "ps | grep 'sleep 7[7]'").stdout)
    asking.kill()
    asking.wait()
    assert tree.wait_until(lambda: not on(device, adb, "shell", "ps | grep 'sleep 7[7]'").stdout)


def test_trees_go_there_and_back(device, adb, tmp_path):
    source = tmp_path / "source"
    (source / "below").mkdir(parents=True)
    (source / "below/data").write_bytes(BLOCK * 40)
    (source / "run").write_text("#!/system/bin/sh\necho ran\n")
    (source / "run").chmod(0o755)
    (source / "link").symlink_to("run")
    assert on(device, adb, "push", str(source), HOME).returncode == 0
    assert on(device, adb, "shell", f"{HOME}/source/run").stdout == "ran\n"
    assert on(device, adb, "shell", f"readlink {HOME}/source/link").stdout == "run\n"
    assert on(device, adb, "pull", f"{HOME}/source", str(tmp_path / "back")).returncode == 0
    assert (tmp_path / "back/below/data").read_bytes() == BLOCK * 40
    assert "below" in on(device, adb, "ls", f"{HOME}/source").stdout


def test_pushes_outside_of_what_the_shell_user_owns_are_refused(device, adb, tmp_path):
    (tmp_path / "x").write_bytes(b"x")
    done = on(device, adb, "push", str(tmp_path / "x"), "/system/x")
    assert done.returncode == 1
    assert "Permission denied" in done.stdout + done.stderr
    assert not (device.tree.root / "system/x").exists()


def test_links_of_the_device_lead_nowhere_on_the_host(device, adb, tmp_path):
    (tmp_path / "secret").write_text("the host's")
    on(device, adb, "shell", f"ln -s {tmp_path} {HOME}/out; ln -s ../../../../../../../etc {HOME}/up")
    assert on(device, adb, "pull", f"{HOME}/out/secret", str(tmp_path / "got")).returncode != 0
    assert on(device, adb, "pull", f"{HOME}/up/passwd", str(tmp_path / "got")).returncode != 0


def interrupted_push(device, adb, tmp_path, what):
    (tmp_path / "old").write_bytes(b"old")
    (tmp_path / "new").write_bytes(BLOCK * 64)
    on(device, adb, "push", str(tmp_path / "old"), f"{HOME}/model")
    device.faults.arm(what, after_writes=8)
    assert on(device, adb, "push", str(tmp_path / "new"), f"{HOME}/model").returncode != 0
    return device.tree.root / "data/local/tmp/model"


def test_a_cut_push_has_removed_what_was_there(device, adb, tmp_path):
    target = interrupted_push(device, adb, tmp_path, "cut")
    assert tree.wait_until(lambda: not target.exists())


def test_a_push_to_a_daemon_that_dies_leaves_half_of_it_under_the_final_name(device, adb, tmp_path):
    target = interrupted_push(device, adb, tmp_path, "die")
    assert 0 < target.stat().st_size < 64 * CHUNK
    assert tree.wait_until(lambda: adb.states().get(device.serial) != "device")


def test_a_stalled_push_goes_on_when_it_may(device, adb, tmp_path):
    (tmp_path / "new").write_bytes(BLOCK * 16)
    device.faults.arm("stall", after_writes=3)
    with ThreadPoolExecutor(1) as pool:
        done = pool.submit(on, device, adb, "push", str(tmp_path / "new"), f"{HOME}/new")
        with pytest.raises(TimeoutError):
            done.result(timeout=1)
        device.faults.release()
        assert done.result(timeout=20).returncode == 0


def test_a_slow_device_makes_a_slow_push(device, adb, tmp_path):
    (tmp_path / "new").write_bytes(BLOCK * 16)
    device.faults.bytes_per_s = 2e6
    done = on(device, adb, "push", str(tmp_path / "new"), f"{HOME}/new")
    seconds = float(done.stdout.rpartition(" in ")[2].rstrip("s)\n"))
    assert seconds > 16 * CHUNK / 2e6 / 2


def test_an_unauthorized_device_waits_for_its_owner(device, adb):
    adb("disconnect", device.serial)
    device.state = "unauthorized"
    adb("connect", device.serial)
    assert device.asked.wait(10)
    assert adb.states()[device.serial] == "unauthorized"
    assert "unauthorized" in on(device, adb, "shell", "true").stderr
    device.confirm()
    assert tree.wait_until(lambda: adb.states()[device.serial] == "device")
    assert on(device, adb, "shell", "true").returncode == 0


def test_a_device_that_falls_silent_is_offline_until_it_is_connected_anew(device, adb):
    device.state = "silent"
    device.unplug()
    assert tree.wait_until(lambda: adb.states().get(device.serial) == "offline")
    assert "offline" in on(device, adb, "shell", "true").stderr
    device.state = "ready"
    adb("disconnect", device.serial)
    adb("connect", device.serial)
    assert on(device, adb, "shell", "true").returncode == 0


def test_a_reboot_ends_everything_that_ran(device, adb):
    on(device, adb, "shell", "setsid sleep 99 > /dev/null 2>&1 < /dev/null &")
    assert on(device, adb, "shell", "ps | grep 'sleep 9[9]'").stdout
    on(device, adb, "reboot")
    assert tree.wait_until(lambda: device.boots == 2)
    adb("disconnect", device.serial)
    adb("connect", device.serial)
    assert on(device, adb, "shell", "ps | grep 'sleep 9[9]'").stdout == ""


def test_a_port_of_the_device_is_reached_through_adb(device, adb):
    class Hello(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(200)
            self.end_headers()
            self.wfile.write(b"hello")

        def log_message(self, *words):
            pass

    import urllib.request

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Hello) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        port = on(device, adb, "forward", "tcp:0", f"tcp:{server.server_port}").stdout.strip()
        assert urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=10).read() == b"hello"
        server.shutdown()


def test_arm64_programs_run_and_the_processor_is_the_one_asked_for(tmp_path, adb):
    if reason := tree.missing("arm64"):
        pytest.skip(reason)
    with Device(tree.Tree(tmp_path / "tree", "arm64", cpu="cortex-a72")) as device:
        adb("connect", device.serial)
        seen = on(device, adb, "shell", "uname -m; grep -c asimddp /proc/cpuinfo; env").stdout
        adb("disconnect", device.serial)
    assert seen.startswith("aarch64\n0\n")
    assert "QEMU_CPU=cortex-a72" in seen
