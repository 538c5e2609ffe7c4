"""What ssh says becomes what a person can do."""

import pytest

from edge.devices.address import connect
from edge.devices.device import LinkLost

pytestmark = pytest.mark.rig


def reason(address):
    device = connect(address)
    try:
        with pytest.raises(LinkLost) as caught:
            device.run(["true"])
    finally:
        device.close()
    assert caught.value.exit_code == 4
    return str(caught.value)


def test_nothing_listens(ssh_rig):
    assert "nothing listens there" in reason("ssh://nobody@127.0.0.1:9")


def test_an_unknown_host_key_is_never_accepted(ssh_rig):
    assert "host key is not known" in reason(f"ssh://127.0.0.1:{ssh_rig.port}")


def test_a_user_without_a_key(ssh_rig):
    known = ssh_rig.folder / "known_hosts"
    with ssh_rig.config.open("a") as f:
        f.write(f"Host 127.0.0.1\n  UserKnownHostsFile {known}\n  IdentityFile /none\n  IdentitiesOnly yes\n")
    assert "does not let us in" in reason(f"ssh://nobody@127.0.0.1:{ssh_rig.port}")


def test_a_name_that_nobody_has(ssh_rig):
    assert "there is no machine of that name" in reason("ssh://no-such-host.invalid")


def test_one_connection_serves_all(ssh_rig):
    device = connect(ssh_rig.address)
    pids = {device.run(["sh", "-c", "echo $SSH_CONNECTION"]).text for _ in range(3)}
    device.close()
    assert len(pids) == 1


def test_what_a_login_script_writes_is_dropped(ssh_rig, monkeypatch, tmp_path):
    rc = tmp_path / "noisy"
    rc.write_text("echo welcome; echo to this machine\n")
    device = connect(ssh_rig.address)
    wrapped = device._command
    try:
        # The same as a .bashrc that greets everyone.
        real = device.open

        def noisy(argv):
            mark = "edge-test:"
            from edge.devices.process import Process

            return Process([*wrapped, f". {rc}; printf {mark}; printf answer"], name="x", begins=mark.encode())

        device.open = noisy
        assert device.run(["true"]).out == b"answer"
    finally:
        device.open = real
        device.close()


def test_a_link_that_is_cut_is_no_exit_code(ssh_rig):
    device = connect(ssh_rig.address)
    stream = device.open(["sh", "-c", "echo $PPID; cat"])
    server = stream.readline(timeout_s=20).strip().decode()
    device.run(["kill", "-9", server])
    with pytest.raises(LinkLost, match="the link broke"):
        stream.finish()
    device.close()
