"""Runs one program within bounds, and leaves nothing of it behind: a program of its own, standard library only.

Its arguments are how many bytes of JSON come first on standard input (argv, parent, program, env, folder, memory_bytes,
file_bytes, cpu_s, read, write, network, confine: "landlock" or ""; what follows is the program's), and a file
descriptor, on which it tells in one JSON object how the program ended (-1: none).
"""

from __future__ import annotations

import ctypes
import errno
import json
import os
import resource
import signal
import stat
import sys

_PDEATHSIG, _NO_NEW_PRIVS, _SUBREAPER = 1, 38, 36
_NEWUSER, _NEWNET = 0x10000000, 0x40000000
_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446  # the same on every architecture

# What Landlock calls the things that can be done to files, by the version that knows them.
_EXECUTE, _WRITE_FILE, _READ_FILE, _READ_DIR = 1 << 0, 1 << 1, 1 << 2, 1 << 3
_REFER, _TRUNCATE, _IOCTL_DEV, _RESOLVE_UNIX = 1 << 13, 1 << 14, 1 << 15, 1 << 16
_FIRST = (1 << 13) - 1
_MAKE_DEVICES = 1 << 6 | 1 << 11
_ON_FILES = _EXECUTE | _WRITE_FILE | _READ_FILE | _TRUNCATE | _IOCTL_DEV | _RESOLVE_UNIX

# What a program needs of the system to start at all: its libraries, and what says who and where it is. Nobody's files.
SYSTEM = (
    "/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/system", "/vendor", "/apex",
    "/etc/ld.so.cache", "/etc/ld.so.conf", "/etc/ld.so.conf.d", "/etc/localtime", "/etc/timezone", "/etc/alternatives",
    "/etc/os-release", "/etc/nsswitch.conf", "/etc/hosts", "/etc/resolv.conf", "/etc/ssl/certs", "/etc/mime.types",
    "/etc/passwd", "/etc/group",
)  # fmt: skip
_DEVICES = ("/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom")


class _Attributes(ctypes.Structure):
    _fields_ = [("files", ctypes.c_uint64), ("network", ctypes.c_uint64), ("scoped", ctypes.c_uint64)]


class _Beneath(ctypes.Structure):
    _pack_ = 1
    _fields_ = [("allowed", ctypes.c_uint64), ("at", ctypes.c_int32)]


def landlock_version(libc: ctypes.CDLL) -> int:
    """0 where the kernel has none, or it is switched off."""
    return max(0, libc.syscall(_CREATE_RULESET, None, ctypes.c_size_t(0), ctypes.c_uint32(1)))


def files_held(version: int) -> int:
    """What a kernel can be asked to hold of files; one that is asked for more holds nothing."""
    held = _FIRST
    for since, right in ((2, _REFER), (3, _TRUNCATE), (5, _IOCTL_DEV), (9, _RESOLVE_UNIX)):
        held |= right if version >= since else 0
    return held


def _landlock(libc: ctypes.CDLL, wanted: dict) -> None:
    version = landlock_version(libc)
    if version == 0:
        raise OSError(errno.ENOSYS, "the kernel has no Landlock")
    files = files_held(version)
    held = _Attributes(files=files)
    size = 8
    if version >= 4:
        size, held.network = 16, 0 if wanted["network"] else 3  # TCP: neither to listen nor to connect
    if version >= 6:
        size, held.scoped = 24, 3  # no sockets and no signals to those outside
    rules = libc.syscall(_CREATE_RULESET, ctypes.byref(held), ctypes.c_size_t(size), ctypes.c_uint32(0))
    if rules < 0:
        raise OSError(ctypes.get_errno(), "Landlock's rules cannot be made")
    reading = _EXECUTE | _READ_FILE | _READ_DIR
    for path in (*SYSTEM, *wanted["read"], wanted["program"]):
        _allow(libc, rules, path, reading & files)
    for path in _DEVICES:
        _allow(libc, rules, path, (_READ_FILE | _WRITE_FILE) & files)
    for path in wanted["write"]:
        _allow(libc, rules, path, (files & ~_MAKE_DEVICES & ~_IOCTL_DEV))
    if libc.syscall(_RESTRICT_SELF, rules, ctypes.c_uint32(0)):
        raise OSError(ctypes.get_errno(), "Landlock cannot be switched on")
    os.close(rules)


def _allow(libc: ctypes.CDLL, rules: int, path: str, rights: int) -> None:
    try:
        at = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except OSError:
        return  # what is not there cannot be allowed
    if not stat.S_ISDIR(os.fstat(at).st_mode):
        rights &= _ON_FILES
    rule = _Beneath(allowed=rights, at=at)
    failed = libc.syscall(_ADD_RULE, rules, ctypes.c_int(1), ctypes.byref(rule), ctypes.c_uint32(0))
    os.close(at)
    if failed:
        raise OSError(ctypes.get_errno(), f"Landlock cannot allow {path}")


def _without_network(libc: ctypes.CDLL) -> None:
    """A network of its own that has nothing in it, where this user may make one; Landlock alone holds TCP only."""
    user, group = os.geteuid(), os.getegid()
    if libc.unshare(_NEWNET) == 0 or libc.unshare(_NEWUSER | _NEWNET) != 0:
        return
    for name, line in (("setgroups", "deny"), ("uid_map", f"{user} {user} 1"), ("gid_map", f"{group} {group} 1")):
        with open(f"/proc/self/{name}", "w", encoding="ascii") as file:
            file.write(line)


def _start(libc: ctypes.CDLL, wanted: dict) -> None:
    """In the child: give up what is not needed, then become the program."""
    _end_with(libc, wanted["worker"], signal.SIGKILL)
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGPIPE, signal.SIGXFSZ):
        signal.signal(number, signal.SIG_DFL)
    libc.prctl(_NO_NEW_PRIVS, 1, 0, 0, 0)  # sudo and the like give nothing
    limits = {
        resource.RLIMIT_AS: wanted["memory_bytes"],
        resource.RLIMIT_FSIZE: wanted["file_bytes"],
        resource.RLIMIT_CPU: wanted["cpu_s"],
        resource.RLIMIT_CORE: 0,
        resource.RLIMIT_NOFILE: 256,
    }
    for kind, most in limits.items():
        hard = resource.getrlimit(kind)[1]
        held = most if hard == resource.RLIM_INFINITY else min(most, hard)
        resource.setrlimit(kind, (held, held))
    os.chdir(wanted["folder"])
    if not wanted["network"] and wanted["confine"]:
        _without_network(libc)
    if wanted["confine"] == "landlock":
        _landlock(libc, wanted)
    os.execve(wanted["argv"][0], wanted["argv"], wanted["env"])


def _end_with(libc: ctypes.CDLL, parent: int, number: int) -> None:
    """Get this signal when the parent ends; if it has ended already, end now."""
    libc.prctl(_PDEATHSIG, number, 0, 0, 0)
    if os.getppid() != parent:
        os._exit(1)


def _children() -> list[int]:
    found = []
    for task in os.listdir("/proc/self/task"):
        with open(f"/proc/self/task/{task}/children", encoding="ascii") as file:
            found += [int(pid) for pid in file.read().split()]
    return found


def _end_all() -> None:
    """Kill what is left, also what made itself a session of its own: orphans become this process's children."""
    while True:
        try:
            for pid in _children():
                os.kill(pid, signal.SIGKILL)
        except OSError:
            pass  # gone meanwhile, or /proc is not there: those that can be waited for are
        try:
            os.waitpid(-1, 0)
        except ChildProcessError:
            return


def _tell(status: int, **what: object) -> None:
    try:
        os.write(status, json.dumps(what).encode())
    except OSError:
        pass  # nobody listens any more


def _first(n: int) -> bytes:
    """Exactly the first `n` bytes of standard input."""
    data = b""
    while len(data) < n:
        piece = os.read(0, n - len(data))
        if not piece:
            sys.exit(1)  # who started it has ended
        data += piece
    return data


def main() -> int:
    wanted, told = json.loads(_first(int(sys.argv[1]))), int(sys.argv[2])
    libc = ctypes.CDLL(None, use_errno=True)
    libc.prctl(_SUBREAPER, 1, 0, 0, 0)
    _end_with(libc, wanted["parent"], signal.SIGTERM)
    wanted["worker"] = os.getpid()
    if told >= 0:
        os.set_inheritable(told, False)
    stop = {signal.SIGTERM, signal.SIGINT, signal.SIGHUP}
    signal.pthread_sigmask(signal.SIG_BLOCK, {*stop, signal.SIGCHLD})
    failing, failed = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            signal.pthread_sigmask(signal.SIG_SETMASK, set())
            _start(libc, wanted)
        except (OSError, ValueError) as err:
            os.write(failed, f"{getattr(err, 'strerror', None) or err}".encode())
        finally:
            os._exit(127)
    os.close(failed)
    for number in (0, 1, 2):  # the program's alone: their end is its end
        os.close(number)
    why = b""
    while piece := os.read(failing, 4096):
        why += piece
    while True:
        if signal.sigwait({*stop, signal.SIGCHLD}) != signal.SIGCHLD:
            _end_all()
            return 1
        pid, status = os.waitpid(child, os.WNOHANG)
        if pid:
            break
    _end_all()
    if why:
        _tell(told, error=why.decode(errors="replace"))
    elif os.WIFSIGNALED(status):
        _tell(told, signal=os.WTERMSIG(status))
    else:
        _tell(told, exit=os.WEXITSTATUS(status))
    return 0


if __name__ == "__main__":
    sys.exit(main())
