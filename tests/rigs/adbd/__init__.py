"""An Android device for the stock `adb` client, without a phone: a small adbd and a tree that looks like Android's.

    python -m tests.rigs.adbd                  this machine's own architecture, nothing emulated
    python -m tests.rigs.adbd --arm64          arm64 programs under qemu, as a phone would run them

    wire.py    messages, streams, flow control       tree.py    the file tree, and how commands run in it
    device.py  what a device is: states, services    faults.py  what can go wrong on the way
    shell.py   shell, shell_v2, exec                 client.py  the stock client on a server of its own
    sync.py    push, pull, list, stat

What it cannot show: USB, SELinux, a phone's kernel, its speed and its heat.
"""
