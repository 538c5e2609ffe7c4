"""A device that serves what is current there, from its start on: a systemd unit, asked for with `edge flash --service`.

The unit starts `bin/edge-serve` of the store, which follows `current`. Root makes it (or `sudo` that asks for nothing);
the server itself runs as the user whose store it is, may write nothing but its cache, and, as long as it listens on
loopback, reaches no other machine.
"""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass

from edge.devices.device import Device, Done
from edge.errors import DeviceError, UsageError

UNIT = "edge-serve.service"
PLACE = "/etc/systemd/system"
_START_S = 180.0
_DONE = {"install": "installed", "restart": "restarted", "remove": "removed"}


@dataclass(frozen=True)
class Service:
    """Where the server listens. Other machines reach it only where `host` is none of loopback's."""

    host: str = "127.0.0.1"
    port: int = 8080

    def __post_init__(self) -> None:
        try:
            ipaddress.ip_address(self.host)
        except ValueError:
            raise UsageError(f"{self.host!r} is no address to listen on", hint="as: 127.0.0.1, or 0.0.0.0") from None
        if not 0 < self.port < 1 << 16:
            raise UsageError(f"port {self.port} is none from 1 to 65535")

    @property
    def alone(self) -> bool:
        """Whether only the device itself hears it."""
        return ipaddress.ip_address(self.host).is_loopback


def unit(service: Service, root: str, user: int) -> str:
    """The unit for the store at `root`, whose owner has the number `user`."""
    # Elsewhere a token is needed: it is made at the first start, and lies where only that user reads it.
    listens = f"--host {service.host} --port {service.port}"
    listens += "" if service.alone else " --token-file %S/edge-serve/token"
    fence = "IPAddressDeny=any\nIPAddressAllow=localhost\n" if service.alone else ""
    return f"""\
[Unit]
Description=edge: what is current in {_plain(root)}, for programs and browsers
After=network.target
StartLimitIntervalSec=600
StartLimitBurst=5

[Service]
Type=exec
User={user}
{_starts(root)}{listens}
Restart=on-failure
RestartSec=5
CacheDirectory=edge-serve
StateDirectory=edge-serve
StateDirectoryMode=0700
Environment=EDGE_CACHE=%C/edge-serve TMPDIR=/tmp HOME=%S/edge-serve
NoNewPrivileges=yes
CapabilityBoundingSet=
ProtectSystem=strict
ProtectHome=read-only
ReadWritePaths=-{_word(f"{root}/refs")}
PrivateTmp=yes
PrivateDevices=yes
ProtectClock=yes
ProtectHostname=yes
ProtectControlGroups=yes
ProtectKernelLogs=yes
ProtectKernelModules=yes
ProtectKernelTunables=yes
LockPersonality=yes
RestrictNamespaces=yes
RestrictRealtime=yes
RestrictSUIDSGID=yes
RestrictAddressFamilies=AF_UNIX AF_INET AF_INET6
SystemCallArchitectures=native
SystemCallFilter=@system-service
{fence}
[Install]
WantedBy=multi-user.target
"""


# The device's half. Exit codes: 69 no systemd, 77 not allowed, 76 it does not run; what the journal says is on stderr.
_SCRIPT = r"""
verb=$1 unit=$2 place=$3
[ -d /run/systemd/system ] || exit 69
as=; [ "$(id -u)" = 0 ] || as="sudo -n"
case $verb in
install)
  $as true 2>/dev/null || exit 77
  cat | $as tee "$place/$unit.new" > /dev/null && $as mv -f "$place/$unit.new" "$place/$unit" || exit 1
  $as systemctl daemon-reload && $as systemctl -q enable "$unit" && $as systemctl restart "$unit" || exit 1
  ;;
restart)
  [ -f "$place/$unit" ] && grep -qF "$4" "$place/$unit" || exit 0
  systemctl -q is-enabled "$unit" || exit 0
  $as true 2>/dev/null || exit 77
  $as systemctl restart "$unit" || exit 1
  ;;
remove)
  [ -f "$place/$unit" ] && grep -qF "$4" "$place/$unit" || exit 0
  $as true 2>/dev/null || exit 77
  $as systemctl -q disable --now "$unit"; $as rm -f "$place/$unit" && $as systemctl daemon-reload && echo removed
  exit
  ;;
esac
n=0
while [ $n -lt 4 ]; do
  sleep 0.5
  systemctl -q is-active "$unit" || { $as journalctl -q -n 8 -o cat -u "$unit" >&2; exit 76; }
  n=$((n + 1))
done
echo runs
"""


def install(device: Device, root: str, user: int, service: Service) -> None:
    """Make the unit and start it, now and with the device; `root` is the store's whole path there."""
    _do(device, "install", root, unit(service, root, user).encode())


def restart(device: Device, root: str) -> bool:
    """Let it take up what is current now; whether there is one."""
    return "runs" in _do(device, "restart", root).text


def follow(device: Device, root: str) -> tuple[str, ...]:
    """As `restart`, for those who did something else: what went wrong is a note."""
    try:
        restart(device, root)
    except DeviceError as err:
        return (f"the service was not started anew: {err.message}",)
    return ()


def remove(device: Device, root: str) -> bool:
    """Stop it and take its unit away; whether there was one."""
    return "removed" in _do(device, "remove", root).text


def _do(device: Device, verb: str, root: str, stdin: bytes = b"") -> Done:
    argv = ["sh", "-c", _SCRIPT, "service", verb, UNIT, PLACE, _starts(root)]
    done = device.run(argv, stdin, timeout_s=_START_S)
    where = f"{device.address}: "
    match done.code:
        case 0:
            return done
        case 69 if verb == "install":
            raise DeviceError(f"{where}it has no systemd to start a service with", hint=f"run {root}/bin/edge-serve")
        case 69:
            return Done(0, b"", b"")
        case 77:
            raise DeviceError(
                f"{where}a service takes root there, and sudo wants a password",
                hint="flash as root, or let the user's sudo ask for none; the bundle itself is there",
            )
        case 76:
            raise DeviceError(f"{where}the service does not stay up: {done.reason}", hint=f"journalctl -u {UNIT}")
    raise DeviceError(f"{where}the service cannot be {_DONE[verb]}: {done.reason}", hint=f"systemctl status {UNIT}")


def _starts(root: str) -> str:
    """How the line of the unit begins that says whose store it serves: no other unit has it."""
    return f"ExecStart={_word(f'{root}/bin/edge-serve')} "


def _word(text: str) -> str:
    """As one word of a unit, whatever is in it.

    >>> _word("/srv/a b/100%")
    '"/srv/a b/100%%"'
    """
    if "\n" in text:
        raise UsageError(f"{text!r} cannot stand in a unit of systemd")
    escaped = text.replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%").replace("$", "$$")
    return f'"{escaped}"' if escaped != text or " " in text or "'" in text else text


def _plain(text: str) -> str:
    return text.replace("%", "%%").replace("\n", " ")
