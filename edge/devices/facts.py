"""What a device is, and how it is now: one script that any sh runs, and a pure parser of what it wrote."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from typing import Any

from edge import profile
from edge.devices import dumpsys
from edge.devices.device import Device
from edge.errors import DeviceError

# What a runtime needs of the device's own Python, by the name that it is imported by.
MODULES = ("numpy", "tokenizers", "jinja2", "llama_cpp", "onnxruntime", "ai_edge_litert", "PIL")
_LOOK = (
    "import sys,json,importlib.util as u;"
    f"print(json.dumps([list(sys.version_info[:3]),[m for m in {MODULES!r} if u.find_spec(m)]]))"
)

# Every section begins with a line "@name". Nothing here is required to be there.
_STATE = r"""
show() { [ -r "$2" ] && { echo "@$1"; cat "$2"; echo; }; }
show loadavg /proc/loadavg
show meminfo /proc/meminfo
show governor /sys/devices/system/cpu/cpu0/cpufreq/scaling_governor
show frequency /sys/devices/system/cpu/cpu0/cpufreq/scaling_cur_freq
echo @temperature; cat /sys/class/thermal/thermal_zone*/temp 2>/dev/null
for t in vcgencmd /opt/vc/bin/vcgencmd; do
  command -v $t >/dev/null && { echo @throttled; $t get_throttled 2>/dev/null; break; }
done
for b in /sys/class/power_supply/*; do
  [ -r "$b/capacity" ] && { echo @battery; cat "$b/capacity"; cat "$b/status" 2>/dev/null; }
done
command -v dumpsys >/dev/null && {
  echo @thermal; dumpsys thermalservice 2>/dev/null
  echo @power; dumpsys battery 2>/dev/null
}
echo @clock; date +%s
"""
_NATURE = r"""
echo @machine; uname -m; echo @kernel; uname -r
show cpuinfo /proc/cpuinfo
show model /proc/device-tree/model
show boot /proc/sys/kernel/random/boot_id
show os /etc/os-release
show emulated /etc/edge-emulated
echo @page; getconf PAGESIZE 2>/dev/null
echo @bits; getconf LONG_BIT 2>/dev/null
echo @libc; getconf GNU_LIBC_VERSION 2>/dev/null
command -v getprop >/dev/null && { echo @android; getprop ro.build.version.release; getprop ro.product.model; }
show emulated /data/local/tmp/.edge-emulated
echo @home; pwd -P; id -u
p=${1:-python3}
command -v "$p" >/dev/null && { echo @python; command -v "$p"; "$p" -c "$2" 2>/dev/null; }
exit 0
"""


@dataclass(frozen=True)
class State:
    """What changes while something runs; `None` for what cannot be told. Bytes, degrees Celsius, percent."""

    load_average: float | None
    available_bytes: int | None
    temperature_c: float | None
    frequency_mhz: float | None
    governor: str | None
    throttled: str | None
    battery_percent: int | None
    battery_status: str | None
    thermal_status: int | None  # Android's: 0 none ... 6 shutdown
    clock_s: int | None

    def record(self) -> dict[str, Any]:
        """As JSON."""
        return asdict(self)


@dataclass(frozen=True)
class Facts:
    """What does not change between two runs. `profile` is the part that decides how fast a model runs."""

    profile: profile.DeviceProfile
    model: str
    system: str
    glibc: tuple[int, int] | None
    android: str | None
    boot_id: str | None
    home: str
    user_id: int | None
    python: str | None
    bits: int = 64
    python_version: tuple[int, ...] = ()
    modules: frozenset[str] = frozenset()
    emulated: bool = False
    state: State | None = field(default=None, compare=False)

    def record(self) -> dict[str, Any]:
        """As JSON, the profile's keys first."""
        return {
            **self.profile.record(),
            "model": self.model, "system": self.system, "glibc": self.glibc and ".".join(map(str, self.glibc)),
            "android": self.android, "python": ".".join(map(str, self.python_version)) or None,
            "modules": sorted(self.modules), "emulated": self.emulated,
        }  # fmt: skip


def ask(device: Device, python: str = "") -> Facts:
    """Ask the device; `python` is an interpreter there other than python3."""
    done = device.run(["sh", "-c", _STATE + _NATURE, "facts", python, _LOOK])
    if done.code:
        raise DeviceError(f"{device.address}: it has no shell that answers: {done.reason}")
    with _understood(device):
        return parse(done.text)


def state(device: Device) -> State:
    """How the device is now."""
    done = device.run(["sh", "-c", _STATE, "facts"])
    with _understood(device):
        return parse_state(sections(done.text))


@contextmanager
def _understood(device: Device) -> Iterator[None]:
    try:
        yield
    except (TypeError, ValueError) as err:
        raise DeviceError(
            f"{device.address}: what it says of itself makes no sense: {err}",
            hint="look at what its python3 and its /proc say; --python names another Python",
        ) from err


def sections(text: str) -> Mapping[str, str]:
    """The lines after each "@name". The first of a name holds, but an empty one gives way.

    >>> sections("@a\\n1\\n\\n@b\\n@a\\n2\\n")
    {'a': '1', 'b': ''}
    """
    found: dict[str, str] = {}
    for part in re.split(r"^@(?=\w+$)", text, flags=re.MULTILINE)[1:]:
        name, _, body = part.partition("\n")
        found[name] = found.get(name) or body.strip("\n\0 ")
    return found


def parse_state(found: Mapping[str, str]) -> State:
    """How the device was when it wrote this."""
    load = found.get("loadavg", "").split()
    celsius = [_celsius(int(t)) for t in found.get("temperature", "").split() if t.lstrip("-").isdigit()]
    frequency = found.get("frequency", "")
    throttled = re.search(r"throttled=(0x[0-9a-fA-F]+)", found.get("throttled", ""))
    battery = found.get("battery", "").splitlines()
    thermal_status, core_c = dumpsys.thermal(found.get("thermal", ""))
    percent, status = dumpsys.battery(found.get("power", ""))
    clock = found.get("clock", "")
    return State(
        load_average=float(load[0]) if load else None,
        available_bytes=profile.meminfo(found.get("meminfo", "")).get("MemAvailable"),
        temperature_c=max((c for c in celsius if -40 < c < 150), default=core_c),
        frequency_mhz=int(frequency) / 1000 if frequency.isdigit() else None,
        governor=found.get("governor") or None,
        throttled=profile.throttled_words(int(throttled[1], 16)) if throttled else None,
        battery_percent=int(battery[0]) if battery and battery[0].isdigit() else percent,
        battery_status=battery[1] if len(battery) > 1 else status,
        thermal_status=thermal_status,
        clock_s=int(clock) if clock.isdigit() else None,
    )


def parse(text: str) -> Facts:
    """What the script wrote, understood."""
    found = sections(text)
    cpuinfo = found.get("cpuinfo", "")
    memory = profile.meminfo(found.get("meminfo", ""))
    physical, logical = profile.core_counts(cpuinfo)
    android = found.get("android", "").splitlines()
    os_name = re.search(r'^PRETTY_NAME="?([^"\n]*)', found.get("os", ""), re.MULTILINE)
    libc = re.search(r"glibc (\d+)\.(\d+)", found.get("libc", ""))
    home = found.get("home", "").splitlines()
    cpu = profile.cpu_name(cpuinfo)
    model = found.get("model") or (android[1] if len(android) > 1 else "") or cpu or found.get("machine", "?")
    python = found.get("python", "").splitlines()
    version: tuple[int, ...] = ()
    modules: frozenset[str] = frozenset()
    if len(python) > 1 and python[-1].startswith("["):
        numbers, names = json.loads(python[-1])
        version, modules = tuple(int(n) for n in numbers), frozenset(map(str, names))
    page = found.get("page", "")
    now = parse_state(found)
    return Facts(
        profile=profile.DeviceProfile(
            machine=found.get("machine", "?"), cpu=cpu or model, physical_cores=physical, logical_cores=logical,
            features=profile.features(cpuinfo), ram_bytes=memory.get("MemTotal"),
            page_bytes=int(page) if page.isdigit() else 4096, kernel=found.get("kernel", "?"),
            governor=now.governor, virtual=bool(re.search(r"^flags\b.*\bhypervisor\b", cpuinfo, re.MULTILINE)),
        ),
        model=model.strip("\0\n "),
        system=f"Android {android[0]}" if android and android[0] else os_name[1] if os_name else "Linux",
        glibc=(int(libc[1]), int(libc[2])) if libc else None,
        android=android[0] if android and android[0] else None,
        boot_id=found.get("boot") or None,
        home=home[0] if home else "/",
        user_id=int(home[1]) if len(home) > 1 and home[1].isdigit() else None,
        python=python[0] if version else None, bits=32 if found.get("bits") == "32" else 64,
        python_version=version, modules=modules, emulated="emulated" in found, state=now,
    )  # fmt: skip


def _celsius(raw: int) -> float:
    """Kernels give thousandths of a degree; some phones whole degrees.

    >>> _celsius(48312), _celsius(41)
    (48.312, 41.0)
    """
    return raw / 1000 if abs(raw) > 300 else float(raw)
