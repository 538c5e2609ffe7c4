"""Kinds of device, one file each: `connect(rest)` gives a `Device` for the address `kind:rest`."""
