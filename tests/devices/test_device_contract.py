"""What every kind of device must do. Kinds without a rig here are tested where their rig is."""

import os

import pytest

from edge.devices.address import connect
from edge.devices.device import Device, Ended, LinkLost, Stream
from edge.errors import DeviceError, UsageError

HOSTILE = [
    "a b",
    "it's",
    'say "x"',
    "; exit 3",
    "$(exit 3)",
    "`exit 3`",
    "two\nlines",
    "-n",
    "*",
    "\\",
    "",
    "ü",
    "%s",
    "~",
]


def test_it_is_a_device(device):
    assert isinstance(device, Device)
    assert device.root


def test_arguments_arrive_word_for_word(device):
    done = device.run(["sh", "-c", 'printf "%s\\0" "$@"', "sh", *HOSTILE])
    assert done.out.decode().split("\0")[:-1] == HOSTILE


def test_input_output_and_errors_are_bytes_and_apart(device):
    data = bytes(range(256)) * 3000
    done = device.run(["sh", "-c", "cat; echo trouble >&2; exit 7"], data)
    assert (done.code, done.out, done.reason) == (7, data, "trouble")


@pytest.mark.parametrize("code", [0, 1, 126, 254])
def test_exit_codes_are_the_programs_own(device, code):
    assert device.run(["sh", "-c", f"exit {code}"]).code == code


def test_a_program_that_a_signal_killed_is_no_broken_link(device):
    assert device.run(["sh", "-c", "kill -ILL $$"]).code == 132
    assert device.run(["sh", "-c", "exit 255"]).code in (254, 255)


def test_a_program_that_is_not_there(device):
    assert device.run(["no-such-program"]).code == 127


def test_time_runs_out(device):
    with pytest.raises(LinkLost, match=r"no end after 0\.7 s"):
        device.run(["sleep", "30"], timeout_s=0.7)


@pytest.mark.parametrize("name", ["plain", "a b'\"$(x);\n-ü"])
def test_files_go_there_and_back(device, tmp_path, name):
    (tmp_path / "here").write_bytes(b"\0\r\n\xff" * 100_000)
    device.run(["mkdir", "-p", device.root])
    remote = f"{device.root}/{name}"
    device.push(tmp_path / "here", remote)
    device.pull(remote, tmp_path / "back")
    assert (tmp_path / "back").read_bytes() == (tmp_path / "here").read_bytes()


def test_a_stream_talks_both_ways(device):
    stream = device.open(["sh", "-c", 'while read -r line; do echo "got $line"; done; echo bye; exit 5'])
    assert isinstance(stream, Stream)
    stream.write(b"one\n")
    assert stream.readline(timeout_s=20) == b"got one\n"
    stream.write(b"two\n")
    assert stream.readline(timeout_s=20) == b"got two\n"
    done = stream.finish()
    assert (done.code, done.out) == (5, b"bye\n")


def test_a_program_that_ends_early_says_so(device):
    stream = device.open(["sh", "-c", "echo full >&2; exit 74"])
    with pytest.raises(Ended, match="stopped listening: full") as caught:
        for _ in range(200):
            stream.write(b"x" * 100_000)
    assert caught.value.done.code == 74


def test_a_dropped_stream_can_be_dropped_again(device):
    stream = device.open(["cat"])
    stream.kill()
    stream.kill()
    with pytest.raises(LinkLost, match="the link was let go"):
        stream.write(b"x")
    assert stream.read() == b""


def test_an_address_that_is_none():
    with pytest.raises(UsageError, match=r"there is no device 'pigeon:x'(.|\n)*kinds: .*local"):
        connect("pigeon:x")
    with pytest.raises(UsageError, match=r"ssh://-oProxyCommand=x is no address"):
        connect("ssh://-oProxyCommand=x")
    with pytest.raises(UsageError, match=r"cannot be called .\.\./x"):
        connect("memory:../x")


def test_a_device_in_memory_with_a_name_stays():
    first = connect("memory:stays")
    first.run(["sh", "-c", 'echo kept > "$1/x"', "sh", first.root])
    first.close()
    again = connect("memory:stays")
    assert again.run(["cat", f"{again.root}/x"]).text == "kept\n"
    again.run(["rm", "-r", again.root])


def test_a_device_in_memory_whose_place_somebody_else_took_is_refused(tmp_path):
    place = connect("memory:taken")
    os.rmdir(place.root)
    os.symlink(tmp_path, place.root)
    try:
        with pytest.raises(DeviceError, match="is somebody else's, or leads elsewhere"):
            connect("memory:taken")
    finally:
        os.unlink(place.root)
