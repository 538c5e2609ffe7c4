"""Packages of another architecture: opened without dpkg, asked for without root."""

from __future__ import annotations

import io
import tarfile

import pytest

from edge.devices.pack.debian import Apt, Package, unpack
from edge.errors import EdgeError, InputError, MissingError

FILES = {
    "./usr/lib/x/libz.so.1.2": b"\x7fELF",
    "./usr/lib/x/libz.so.1": "libz.so.1.2",
    "./lib/far.so": "/usr/lib/x/libz.so.1",
    "./lib/out.so": "../../../etc/passwd",
    "./lib/round.so": "round.so",
    "./usr/bin/tool": b"#!/bin/sh\n",
}


def deb(path, files=FILES, member=b"data.tar.xz"):
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:xz") as tar:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            if isinstance(content, str):
                info.type, info.linkname = tarfile.SYMTYPE, content
                tar.addfile(info)
            else:
                info.size, info.mode = len(content), 0o755 if "bin" in name else 0o644
                tar.addfile(info, io.BytesIO(content))
    blob = b"!<arch>\n"
    for name, data in ((b"debian-binary", b"2.0\n"), (b"control.tar", b"odd"), (member, packed.getvalue())):
        blob += name.ljust(16) + b"0".ljust(12) + b"0".ljust(6) + b"0".ljust(6) + b"100644".ljust(8)
        blob += str(len(data)).encode().ljust(10) + b"`\n" + data + b"\n" * (len(data) % 2)
    path.write_bytes(blob)
    return path


def test_files_go_where_they_are_wanted_and_links_become_copies(tmp_path):
    unpack(deb(tmp_path / "x.deb"), tmp_path / "out", lambda path: path if path.name != "tool" else None)
    found = {p.relative_to(tmp_path / "out").as_posix(): p.read_bytes() for p in (tmp_path / "out").rglob("*.so*")}
    assert found == {name: b"\x7fELF" for name in ("usr/lib/x/libz.so.1.2", "usr/lib/x/libz.so.1", "lib/far.so")}


def test_programs_stay_executable(tmp_path):
    unpack(deb(tmp_path / "x.deb"), tmp_path, lambda path: path if path.name == "tool" else None)
    assert (tmp_path / "usr/bin/tool").stat().st_mode & 0o111


def test_no_file_is_placed_outside(tmp_path):
    with pytest.raises(InputError, match="which cannot be placed"):
        unpack(deb(tmp_path / "x.deb"), tmp_path / "out", lambda path: path / "../../../../../../y")


def test_what_is_no_package(tmp_path):
    (tmp_path / "x").write_bytes(b"PK")
    with pytest.raises(InputError, match="is not a Debian package"):
        unpack(tmp_path / "x", tmp_path, lambda path: path)
    with pytest.raises(InputError, match="holds no data"):
        unpack(deb(tmp_path / "y", member=b"other"), tmp_path, lambda path: path)


@pytest.fixture
def fake_apt(tmp_path, monkeypatch):
    """An apt-get that does what a test's script says."""

    def fake(script):
        program = tmp_path / "bin/apt-get"
        program.parent.mkdir(exist_ok=True)
        program.write_text(f"#!/bin/sh\n{script}\n")
        program.chmod(0o755)
        monkeypatch.setenv("PATH", f"{program.parent}:/usr/bin:/bin")
        return Apt(tmp_path / "apt", "arm64")

    return fake


def test_apt_is_told_to_leave_the_system_alone(fake_apt, tmp_path):
    apt = fake_apt('echo "$@" > "$PWD/../said"')
    apt.update()
    said = (tmp_path / "apt/said").read_text()
    assert f"Dir::State={tmp_path}/apt/state" in said
    assert "APT::Architecture=arm64" in said


def test_packages_are_those_of_the_signed_index(fake_apt):
    digest = "ab" * 32
    apt = fake_apt(f"echo \"'http://x/pool/z_1%3a1_arm64.deb' z_1%3a1_arm64.deb 12 SHA256:{digest}\"")
    apt.update()
    assert apt.find(["z"]) == (Package("z", "z_1%3a1_arm64.deb", digest),)
    with pytest.raises(EdgeError, match=r"apt knows no y for arm64(.|\n)*/etc/apt"):
        apt.find(["y", "z"])


def test_what_a_package_needs_comes_with_it(fake_apt):
    digest = "ab" * 32
    names = " ".join(f"\"'http://x/pool/{n}_1_arm64.deb' {n}_1_arm64.deb 12 SHA256:{digest}\"" for n in "yz")
    apt = fake_apt(f"printf '%s\\n' {names}")
    apt.update()
    assert [package.name for package in apt.closure(["z"])] == ["y", "z"]


def test_another_release_comes_from_the_systems_mirror(fake_apt, tmp_path):
    lines = "'$(ORIGIN) nodistro http://x/' 'Debian bookworm http://y/debian/' 'Debian bookworm-security http://z/'"
    apt = fake_apt(f'printf \'%s\\n\' {lines}; echo "$@" > "$PWD/../said"')
    apt.update()
    assert apt.of("bookworm") is apt
    other = apt.of("trixie")
    other.update()
    assert (other.folder / "sources.list").read_text().endswith("gpg] http://y/debian/ trixie main\n")
    said = (other.folder / "said").read_text()
    assert f"Dir::Etc::sourcelist={other.folder}/sources.list" in said
    assert "Dir::Etc::sourceparts=/dev/null" in said
    apt = fake_apt("exit 0")
    with pytest.raises(EdgeError, match="no mirror of Debian among apt's sources, for its release trixie"):
        apt.of("trixie")


def test_what_apt_cannot_do_is_said_in_its_words(fake_apt):
    apt = fake_apt("echo 'E: no such host' >&2; exit 100")
    with pytest.raises(EdgeError, match="cannot read the index of packages for arm64: E: no such host"):
        apt.update()
    assert not apt.has("z")
    with pytest.raises(EdgeError, match="apt cannot put y z together: E: no such host"):
        apt.closure(["y", "z"])
    with pytest.raises(EdgeError, match="apt cannot download z: E: no such host"):
        apt.fetch([Package("z", "z.deb", "00")])


def test_without_apt_there_is_no_pack(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(MissingError, match="there is no apt-get here"):
        Apt(tmp_path / "apt", "arm64").update()
