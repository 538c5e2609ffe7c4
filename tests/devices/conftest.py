"""Devices to test on: each once for a whole module."""

from __future__ import annotations

import pytest

from edge.devices.address import connect
from tests.rigs import sshd


@pytest.fixture(scope="session")
def ssh_rig(tmp_path_factory):
    if reason := sshd.missing():
        pytest.skip(reason)
    rig = sshd.Sshd(tmp_path_factory.mktemp("sshd"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("EDGE_SSH_CONFIG", str(rig.config))
        yield rig
    rig.stop()


@pytest.fixture(params=["local", "memory", pytest.param("ssh", marks=pytest.mark.rig)])
def device(request, tmp_path):
    """One device of each kind, with an empty store."""
    match request.param:
        case "local":
            found = connect(f"local:{tmp_path / 'store'}")
        case "memory":
            found = connect("memory:")
        case _:
            rig = request.getfixturevalue("ssh_rig")
            found = connect(f"{rig.address}{tmp_path / 'store'}")
    yield found
    found.close()
