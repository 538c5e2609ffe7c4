"""Debian packages of another architecture, fetched by `apt` without root and without touching the system.

apt gets folders of its own for its lists and its downloads, and an empty record of what is installed. The
sources and the keys are the system's: what is fetched is signed by those whom this machine trusts anyway.
"""

from __future__ import annotations

import io
import os
import re
import subprocess
import tarfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from edge.devices.needs import Need
from edge.errors import EdgeError, InputError, MissingError

_TIMEOUT_S = 600
NEED = Need("Python for arm64 devices", ("apt-get",), "--version", "Debian, Raspberry Pi OS or Ubuntu have it")
_MEMBER = re.compile(rb"(.{16}).{12}.{6}.{6}.{8}(.{10})`\n", re.DOTALL)
_LIMIT_BYTES = 256 << 20


@dataclass(frozen=True)
class Package:
    """One file of the archive, as the signed index has it."""

    name: str
    file: str
    sha256: str


class Apt:
    """apt for `architecture` (in Debian's words: arm64), with its state below `folder`.

    `sources` is a list of sources to use in place of the system's.
    """

    def __init__(self, folder: Path, architecture: str, sources: str | None = None) -> None:
        self.folder = folder.resolve()
        self.architecture = architecture
        self._sources = sources

    def update(self) -> None:
        """Read the indexes anew. Raises `MissingError` without apt, `EdgeError` when no index can be had."""
        if NEED.missing:
            raise MissingError(
                "the runtime pack is made from Debian packages, and there is no apt-get here",
                hint="make it on Debian, Raspberry Pi OS or Ubuntu, and copy edge's cache folder from there",
            )
        for name in ("state/lists/partial", "cache/archives/partial", "files"):
            (self.folder / name).mkdir(parents=True, exist_ok=True)
        (self.folder / "status").touch()
        if self._sources is not None:
            (self.folder / "sources.list").write_text(self._sources)
        done = self._run("update")
        if done.returncode != 0:
            raise EdgeError(
                f"apt cannot read the index of packages for {self.architecture}: {_last(done.stderr)}",
                hint="is the network there, and do the sources in /etc/apt have that architecture?",
            )

    def of(self, release: str) -> Apt:
        """apt for that release of Debian, from the mirror that the system's own comes from. After `update`."""
        done = self._run("indextargets", "--format", "$(ORIGIN) $(CODENAME) $(REPO_URI)", "Created-By: Packages")
        found = re.findall(r"^Debian (\S+) (\S+)$", done.stdout, re.MULTILINE)
        if not found:
            raise EdgeError(f"there is no mirror of Debian among apt's sources, for its release {release}")
        if release in (codename for codename, _ in found):
            return self
        keys = "/usr/share/keyrings/debian-archive-keyring.gpg"
        line = f"deb [signed-by={keys}] {found[0][1]} {release} main\n"
        return Apt(self.folder.with_name(f"{self.folder.name}-{release}"), self.architecture, line)

    def find(self, names: Sequence[str]) -> tuple[Package, ...]:
        """The current versions of `names`; `EdgeError` when one does not exist for the architecture."""
        done = self._run("download", "--print-uris", *names, where="state")
        found = tuple(
            Package(file.partition("_")[0], file, digest)
            for file, digest in re.findall(r"^'\S+' (\S+) \d+ SHA256:([0-9a-f]{64})$", done.stdout, re.MULTILINE)
        )
        missing = sorted(set(names) - {p.name for p in found})
        if done.returncode != 0 or missing:
            raise EdgeError(
                f"apt knows no {', '.join(missing) or 'such packages'} for {self.architecture}: {_last(done.stderr)}",
                hint="do the sources in /etc/apt have that architecture?",
            )
        return found

    def closure(self, names: Sequence[str]) -> tuple[Package, ...]:
        """`names` and all that they need, as apt would put them onto an empty system."""
        done = self._run("install", "--print-uris", "--no-install-recommends", *names, where="state")
        found = re.findall(r"^'\S+' ([^_\s]+)_\S+ \d+ ", done.stdout, re.MULTILINE)
        if done.returncode != 0:
            raise EdgeError(f"apt cannot put {' '.join(names)} together: {_last(done.stderr)}")
        return self.find(found)

    def has(self, name: str) -> bool:
        """Whether there is such a package."""
        return self._run("download", "--print-uris", name, where="state").returncode == 0

    def fetch(self, packages: Sequence[Package]) -> tuple[Path, ...]:
        """Download them; apt checks every hash. Paths in the order of `packages`."""
        folder = self.folder / "files"
        wanted = [p.name for p in packages if not (folder / p.file).is_file()]
        if wanted:
            done = self._run("download", *wanted)
            if done.returncode != 0:
                raise EdgeError(f"apt cannot download {', '.join(wanted)}: {_last(done.stderr)}")
        return tuple(folder / p.file for p in packages)

    def _run(self, *words: str, where: str = "files") -> subprocess.CompletedProcess[str]:
        # Of what lies in the folder that it is started in, apt says nothing.
        settings = {
            "Dir::State": self.folder / "state",
            "Dir::State::status": self.folder / "status",
            "Dir::Cache": self.folder / "cache",
            "APT::Architecture": self.architecture,
            "APT::Architectures::": self.architecture,
            "APT::Sandbox::User": "",  # who is not root cannot become apt's own user
            "APT::Get::List-Cleanup": "0",
        }
        if self._sources is not None:
            settings |= {"Dir::Etc::sourcelist": self.folder / "sources.list", "Dir::Etc::sourceparts": "/dev/null"}
        options = [word for key, value in settings.items() for word in ("-o", f"{key}={value}")]
        return subprocess.run(
            ["apt-get", *options, "-qq", *words],
            cwd=self.folder / where,
            env={**os.environ, "LC_ALL": "C", "DEBIAN_FRONTEND": "noninteractive"},
            stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=_TIMEOUT_S, check=False,
        )  # fmt: skip


def unpack(package: Path, target: Path, place: Callable[[PurePosixPath], PurePosixPath | None]) -> None:
    """Write files of the `.deb` below `target`; `place` says where each goes, `None` for not at all.

    Links within the package become copies, so that the result needs no links. Needs no dpkg: a `.deb` is an `ar`
    archive with a tar file in it. Raises `InputError` when it is not one, or holds what is no plain file.
    """
    with tarfile.open(fileobj=io.BytesIO(_data(package)), mode="r:*") as tar:
        members = {_path(m.name): m for m in tar}
        for path, member in members.items():
            if member.isdir() or (goes_to := place(path)) is None:
                continue
            member = _follow(path, member, members)  # noqa: PLW2901
            if not member.isreg():
                continue  # a link out of the package
            source = tar.extractfile(member)
            if source is None or ".." in goes_to.parts or goes_to.is_absolute():
                raise InputError(f"{package.name} holds {member.name!r}, which cannot be placed")
            out = target / goes_to
            out.parent.mkdir(parents=True, exist_ok=True)
            out.write_bytes(source.read())
            out.chmod(0o755 if member.mode & 0o100 else 0o644)


def _follow(
    path: PurePosixPath, member: tarfile.TarInfo, members: Mapping[PurePosixPath, tarfile.TarInfo]
) -> tarfile.TarInfo:
    """What a link leads to within the package; the link itself when it leads out of it."""
    for _ in range(8):
        if not member.issym() and not member.islnk():
            break
        leads_to = os.path.join("/", path.parent, member.linkname) if member.issym() else member.linkname
        path = _path(os.path.normpath(leads_to))
        if path not in members:
            break
        member = members[path]
    return member


def _path(name: str) -> PurePosixPath:
    return PurePosixPath(name.removeprefix("./").lstrip("/") or ".")


def _data(package: Path) -> bytes:
    """The tar file inside."""
    blob = package.read_bytes()
    if not blob.startswith(b"!<arch>\n") or len(blob) > _LIMIT_BYTES:
        raise InputError(f"{package} is not a Debian package")
    at = 8
    while head := _MEMBER.match(blob, at):
        size = int(head[2])
        if head[1].startswith(b"data.tar"):
            return blob[head.end() : head.end() + size]
        at = head.end() + size + size % 2
    raise InputError(f"{package} is not a Debian package: it holds no data.tar")


def _last(text: str) -> str:
    return ([" ".join(line.split()) for line in text.splitlines() if line.strip()] or ["it said nothing"])[-1][:300]
