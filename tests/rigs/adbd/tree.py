"""A file tree that looks like Android's from inside, and how commands run in it.

`/system/bin/sh` is mksh, as on phones; the tools are busybox under the names that Android's toybox has; no
`/lib`, no `/usr`, no Python. Commands run as user 2000 (Android's `shell`), with a `/proc/cpuinfo` and a `/sys`
that say what phone this is, for the host's own would leak through. Without root, a user namespace stands in for
it, and commands run as its root.
"""

from __future__ import annotations

import os
import platform
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Literal

from edge import cache
from edge.devices.pack.debian import Apt, unpack
from tests.rigs import emulation

INSTALL = "make rigs"
Architecture = Literal["host", "arm64"]
WRITABLE = ("/data/local/tmp", "/sdcard")
_SHELL_USER = 2000
_MUSL = "usr/lib/{machine}-linux-musl/bin/mksh"
# What both Android's toybox and Debian's busybox have: nothing that a phone lacks. (A phone also has cksum, comm,
# flock, fsync, mountpoint, nice, pgrep, pkill, pmap, printenv, split, nohup.)
_TOOLS = """
    awk base64 basename cat chgrp chmod chown chroot clear cmp cp cpio cut date dd df diff dirname dmesg du
    echo egrep env expr fallocate false fgrep find free grep groups gunzip gzip head hostname id ionice kill
    killall ln logger ls md5sum mkdir mkfifo mknod mktemp more mount mv nc netstat nl nproc od paste patch
    pidof ping printf ps pwd readlink realpath renice rev rm rmdir sed seq setsid sha1sum sha256sum sha512sum
    sleep sort stat strings stty sync tac tail tar taskset tee test time timeout top touch tr true truncate
    tty umount uname uniq unlink uptime usleep uudecode uuencode vi watch wc which whoami xargs xxd yes zcat
"""
_COMPILERS = {"host": "cc", "arm64": "aarch64-linux-gnu-gcc"}
PROPERTIES = {
    "ro.product.name": "edge_arm64",
    "ro.product.model": "Edge Test Phone",
    "ro.product.device": "edgetest",
    "ro.product.manufacturer": "Edge",
    "ro.product.cpu.abi": "arm64-v8a",
    "ro.product.cpu.abilist": "arm64-v8a,armeabi-v7a,armeabi",
    "ro.build.version.release": "14",
    "ro.build.version.sdk": "34",
    "ro.serialno": "EDGE0001",
    "ro.hardware": "edge",
    "ro.soc.model": "Test SoC",
    "ro.kernel.qemu": "1",
    "sys.boot_completed": "1",
}
_GETPROP = """#!/system/bin/sh
if [ $# = 0 ]; then sed 's/^\\([^=]*\\)=\\(.*\\)$/[\\1]: [\\2]/' /system/build.prop
else grep "^$1=" /system/build.prop | cut -d= -f2-; fi
"""
# A phone's flushes one file; here everything, which is no less.
_FSYNC = "#!/system/bin/sh\nsync\n"
_DUMPSYS = """#!/system/bin/sh
if [ -f "/system/etc/dumpsys/$1" ]; then cat "/system/etc/dumpsys/$1"; else echo "Can't find service: $1"; exit 0; fi
"""
BATTERY = """Current Battery Service state:
  AC powered: false
  USB powered: true
  Wireless powered: false
  status: 2
  health: 2
  present: true
  level: 84
  scale: 100
  voltage: 4213
  temperature: 281
  technology: Li-ion
"""
THERMAL = """IsStatusOverride: false
ThermalEventListeners:
\tcallbacks: 2
Thermal Status: 0
Cached temperatures:
\tTemperature{mValue=34.1, mType=3, mName=skin, mStatus=0}
\tTemperature{mValue=41.7, mType=0, mName=cpu0, mStatus=0}
HAL Ready: true
"""
_CORE = """processor\t: {n}
BogoMIPS\t: 49.15
Features\t: {features}
CPU implementer\t: 0x41
CPU architecture: 8
CPU variant\t: 0x4
CPU part\t: {part}
CPU revision\t: 1

"""
_BASE = "fp asimd evtstrm aes pmull sha1 sha2 crc32 cpuid"
# Names that qemu knows, with the part number and the features that such a core reports.
CPUS = {
    "cortex-a72": ("0xd08", _BASE),
    "cortex-a76": ("0xd0b", f"{_BASE} atomics fphp asimdhp asimdrdm lrcpc dcpop asimddp"),
}
_MEMINFO = """MemTotal:        7799808 kB
MemFree:         1403116 kB
MemAvailable:    4210688 kB
Buffers:           12044 kB
Cached:          2913908 kB
SwapTotal:       3145724 kB
SwapFree:        2301948 kB
"""


class Tree:
    """One tree below `root`, and the namespaces that its commands run in while it is started."""

    user = _SHELL_USER
    board = ""  # what /proc/cpuinfo says after the cores

    def __init__(self, root: Path, architecture: Architecture = "host", cpu: str = "cortex-a76") -> None:
        self.root, self.architecture, self.cpu = root.resolve(), architecture, cpu
        self.properties = dict(PROPERTIES)
        self._init: subprocess.Popen[bytes] | None = None
        self._build()

    def start(self) -> None:
        """Make the namespaces: an own /proc, an own /dev, and a first process that outlives every command."""
        mine = ["--user", "--map-root-user"] if os.geteuid() else []
        own = [*mine, "--mount", "--pid"]
        self._init = subprocess.Popen(
            ["unshare", "--fork", "--kill-child=KILL", *own, "sh", "-c", _INIT, "sh", str(self.root)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
        )
        assert self._init.stdout is not None
        if self._init.stdout.readline() != b"ready\n":
            raise RuntimeError(f"the tree at {self.root} cannot be started")

    def stop(self) -> None:
        """End every process of the tree at once."""
        if self._init is not None:
            self._init.send_signal(signal.SIGKILL)
            self._init.wait()
            self._init = None

    def command(self, argv: Sequence[str]) -> list[str]:
        """What runs `argv` inside, as a command of the host."""
        assert self._init is not None
        children = Path(f"/proc/{self._init.pid}/task/{self._init.pid}/children").read_text().split()
        user = ["--user", "--preserve-credentials"] if os.geteuid() else []
        who = [] if os.geteuid() else [f"--userspec={self.user}:{self.user}"]
        # Found here: the command's environment has Android's PATH.
        inside = [shutil.which("nsenter") or "nsenter", f"--target={children[0]}", *user, "--mount", "--pid"]
        return [*inside, "/usr/sbin/chroot", *who, str(self.root), *argv]

    def environment(self) -> Mapping[str, str]:
        """What commands find in their environment; nothing of the host's."""
        return {
            "PATH": "/product/bin:/apex/com.android.runtime/bin:/system/bin:/system/xbin:/vendor/bin",
            "HOME": "/", "SHELL": "/system/bin/sh", "TMPDIR": "/data/local/tmp", "TERM": "dumb", "USER": "shell",
            "LOGNAME": "shell", "HOSTNAME": "edgetest", "ANDROID_DATA": "/data", "ANDROID_ROOT": "/system",
            **({"QEMU_CPU": self.cpu} if self.architecture == "arm64" else {}),
        }  # fmt: skip

    def resolve(self, path: str, *, follow: bool = True) -> Path:
        """Where a path of the device lies on the host; links are followed inside the tree, never out of it."""
        at, parts, links = PurePosixPath("/"), _parts(path), 0
        while parts:
            here = self.root / at.relative_to("/") / parts[0]
            last = len(parts) == 1
            if here.is_symlink() and (follow or not last) and links < 40:
                links += 1
                parts = _parts(os.path.join(at, os.readlink(here))) + parts[1:]
                at = PurePosixPath("/")
            else:
                at /= parts.pop(0)
        return self.root / at.relative_to("/")

    def may_write(self, path: str) -> bool:
        """Whether Android's `shell` user may make or replace a file there."""
        parent = self.resolve("/".join(_parts(path)[:-1]))
        return any(parent.is_relative_to(self.root / place.lstrip("/")) for place in WRITABLE)

    def make_folders(self, folder: Path) -> None:
        """With parents, owned by the shell user."""
        missing = [p for p in (folder, *folder.parents) if not p.exists()]
        folder.mkdir(parents=True, exist_ok=True)
        for path in missing:
            self.own(path)

    def own(self, path: Path) -> None:
        """Give it to the shell user, where that is another one than who runs this."""
        if os.geteuid() == 0:
            os.chown(path, self.user, self.user, follow_symlinks=False)

    def _build(self) -> None:
        for name in ("system/bin", "system/etc/dumpsys", "data/local/tmp", "sdcard", "vendor/bin", "proc", "dev/shm"):
            (self.root / name).mkdir(parents=True, exist_ok=True)
        shell, busybox = programs(self.architecture, self.root.parent)
        programs_folder = self.root / "system/bin"
        shutil.copy(shell, programs_folder / "sh")
        shutil.copy(busybox, programs_folder / "busybox")
        shutil.copy(flock(self.architecture), programs_folder / "flock")
        for tool in _TOOLS.split():
            (programs_folder / tool).symlink_to("busybox")
        (self.root / "bin").symlink_to("system/bin")
        (self.root / "etc").symlink_to("system/etc")
        # What is measured in such a tree is never taken for a device's own.
        (self.root / "system/etc/edge-emulated").write_text(f"{self.cpu}\n")
        for name, text in (("getprop", _GETPROP), ("dumpsys", _DUMPSYS), ("fsync", _FSYNC)):
            (programs_folder / name).write_text(text)
            (programs_folder / name).chmod(0o755)
        (self.root / "system/build.prop").write_text("".join(f"{k}={v}\n" for k, v in self.properties.items()))
        (self.root / "system/etc/dumpsys/battery").write_text(BATTERY)
        (self.root / "system/etc/dumpsys/thermalservice").write_text(THERMAL)
        self._identity()
        for place in WRITABLE:
            self.own(self.root / place.lstrip("/"))

    def _identity(self) -> None:
        """What /proc and /sys say: as many cores as the host has, for libraries pin their threads to them."""
        cores = len(os.sched_getaffinity(0)) if platform.machine() == "aarch64" else os.cpu_count() or 1
        part, features = CPUS[self.cpu]
        fake = self.root / ".rig"
        fake.mkdir()
        cpuinfo = "".join(_CORE.format(n=n, part=part, features=features) for n in range(cores))
        (fake / "cpuinfo").write_text(cpuinfo + self.board)
        (fake / "meminfo").write_text(_MEMINFO)
        files = {
            "class/thermal/thermal_zone0/type": "cpu-thermal",
            "class/thermal/thermal_zone0/temp": "41700",
            "devices/system/cpu/kernel_max": str(cores - 1),
            **{f"devices/system/cpu/{name}": f"0-{cores - 1}" for name in ("online", "possible", "present")},
        }
        for n in range(cores):
            cpu = f"devices/system/cpu/cpu{n}"
            files |= {
                f"{cpu}/cpufreq/cpuinfo_max_freq": "2400000",
                f"{cpu}/cpufreq/cpuinfo_min_freq": "600000",
                f"{cpu}/cpufreq/scaling_cur_freq": "1800000",
                f"{cpu}/cpufreq/scaling_governor": "schedutil",
                f"{cpu}/topology/core_id": str(n),
                f"{cpu}/topology/physical_package_id": "0",
                f"{cpu}/topology/core_siblings_list": f"0-{cores - 1}",
                f"{cpu}/topology/package_cpus_list": f"0-{cores - 1}",
                f"{cpu}/topology/thread_siblings_list": str(n),
            }
        for name, text in files.items():
            path = self.root / "sys" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text + "\n")


# The loop is the first process of the tree: it collects those whose parents are gone.
_INIT = """
set -e
root=$1
mount -t proc proc "$root/proc"
for name in cpuinfo meminfo; do mount --bind "$root/.rig/$name" "$root/proc/$name"; done
for name in null zero full random urandom tty; do
  : > "$root/dev/$name"
  mount --bind "/dev/$name" "$root/dev/$name"
done
chmod 1777 "$root/dev/shm"
echo ready
while :; do sleep 3600; done
"""


def _parts(path: str) -> list[str]:
    return [part for part in os.path.normpath("/" + path).split("/") if part]


def missing(architecture: Architecture = "host") -> str | None:
    """Why such a tree cannot run here, and what to do about it; `None` when it can."""
    for name in ("unshare", "nsenter"):
        if shutil.which(name) is None:
            return f"there is no {name} here (util-linux)"
    free = ["unshare", "--user", "--map-root-user"] if os.geteuid() else ["unshare"]
    if subprocess.run([*free, "--mount", "--pid", "--fork", "true"], capture_output=True).returncode != 0:
        return "namespaces need root here, or a kernel that lets everybody have them"
    if shutil.which(_COMPILERS[architecture]) is None:
        return f"there is no {_COMPILERS[architecture]} here; install with: {INSTALL}"
    if architecture == "arm64":
        return emulation.missing() or (None if shutil.which("apt-get") else "arm64 programs are fetched by apt-get")
    shell = Path("/", _MUSL.format(machine=platform.machine()))
    wanted = {"mksh": shell, "busybox-static": Path("/bin/busybox")}
    absent = [name for name, path in wanted.items() if not path.is_file()]
    return f"{' and '.join(absent)} not installed; install with: {INSTALL}" if absent else None


def programs(architecture: Architecture, folder: Path) -> tuple[Path, Path]:
    """A shell and a busybox that need no library; those for arm64 are fetched once, into the cache."""
    if architecture == "host":
        return Path("/", _MUSL.format(machine=platform.machine())), Path("/bin/busybox")
    kept = cache.find("rigs", "android-arm64")
    if kept is None:
        with cache.building("rigs", "android-arm64") as work:
            apt = Apt(folder / "apt", "arm64")
            apt.update()
            for package in apt.fetch(apt.find(["mksh", "busybox-static"])):
                unpack(package, work, lambda path: path)
        kept = cache.root() / "rigs" / "android-arm64"
    return kept / _MUSL.format(machine="aarch64"), kept / "bin/busybox"


def flock(architecture: Architecture) -> Path:
    """The one tool of toybox that is needed and that busybox lacks: compiled once, into the cache."""
    source = Path(__file__).with_name("flock.c")
    compiler = _COMPILERS[architecture]
    key = cache.key(source=source.read_text(), compiler=compiler, machine=platform.machine())
    kept = cache.find("rigs", key)
    if kept is None:
        with cache.building("rigs", key) as work:
            subprocess.run([compiler, "-O1", "-static", "-o", str(work / "flock"), str(source)], check=True)
        kept = cache.root() / "rigs" / key
    return kept / "flock"


def wait_until(condition: Callable[[], object], timeout_s: float = 10) -> bool:
    """Poll `condition()` for as long as `timeout_s`."""
    end = time.monotonic() + timeout_s
    while time.monotonic() < end:
        if condition():
            return True
        time.sleep(0.05)
    return False
