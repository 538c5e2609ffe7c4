"""edge: from a checkpoint to a proven bundle that runs offline on a device."""

__version__ = "0.1.0"
