"""Running arm64 programs on this machine: qemu, registered with the kernel for every arm64 file that is executed."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
from pathlib import Path

INSTALL = "make rigs"
_REGISTRY = Path("/proc/sys/fs/binfmt_misc")


def missing() -> str | None:
    """Why arm64 programs cannot run here, and what to do about it; `None` when they can.

    Mounts the kernel's registry when it has it and nobody has mounted it.
    """
    if platform.machine() == "aarch64":
        return None
    if shutil.which("qemu-aarch64-static") is None:
        return f"arm64 programs need qemu-user; install it with: {INSTALL}"
    entry = _REGISTRY / "qemu-aarch64"
    if os.geteuid() == 0 and not entry.exists():
        if not (_REGISTRY / "register").exists():
            subprocess.run(["mount", "-t", "binfmt_misc", "binfmt_misc", str(_REGISTRY)], capture_output=True)
        subprocess.run(["update-binfmts", "--enable", "qemu-aarch64"], capture_output=True)
    if not entry.exists():
        return f"the kernel does not know qemu for arm64 programs; as root: {INSTALL}"
    # Without F the kernel looks for qemu inside the tree that a command runs in.
    if "flags: " not in (text := entry.read_text()) or "F" not in text.partition("flags: ")[2].split("\n")[0]:
        return "qemu is registered without the flag F, so it is not found in another tree"
    return None
