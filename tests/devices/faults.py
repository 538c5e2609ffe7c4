"""Devices that misbehave: wrappers around real ones."""

from __future__ import annotations

from edge.devices.device import LinkLost


class Wrapped:
    """A device with its streams in somebody's hands; everything else is the inner device's."""

    def __init__(self, inner):
        self.inner = inner
        self.address, self.root, self.python = inner.address, inner.root, inner.python
        self.verbs = []  # of the store, in order

    def __getattr__(self, name):
        return getattr(self.inner, name)

    def run(self, argv, stdin=b"", timeout_s=60.0):
        self.note(argv)
        return self.inner.run(argv, stdin, timeout_s)

    def open(self, argv):
        self.note(argv)
        return Stream(self, self.inner.open(argv), argv)

    def note(self, argv):
        if argv[3:4] == ["store"]:
            self.verbs.append(argv[4])

    def written(self, stream, data):
        return data


class Stream:
    def __init__(self, device, inner, argv):
        self.device, self.inner = device, inner
        self.verb = argv[4] if argv[3:4] == ["store"] else argv[-1]

    def write(self, data, timeout_s=30.0):
        self.inner.write(self.device.written(self, data), timeout_s)

    def __getattr__(self, name):
        return getattr(self.inner, name)


class Cut(Wrapped):
    """The link breaks after so many bytes of files, as often as `times` says."""

    def __init__(self, inner, after, times=1):
        super().__init__(inner)
        self.after, self.left, self.times = after, after, times

    def written(self, stream, data):
        if stream.verb not in ("put", "several") or not self.times:
            return data
        if len(data) >= self.left:
            stream.inner.write(data[: self.left])
            stream.inner.kill()
            self.left, self.times = self.after, self.times - 1
            raise LinkLost("the link broke")
        self.left -= len(data)
        return data


class Flips(Wrapped):
    """One bit of what is sent arrives as another, as often as `times` says."""

    def __init__(self, inner, times=1):
        super().__init__(inner)
        self.times = times

    def written(self, stream, data):
        if stream.verb == "put" and self.times:
            self.times -= 1
            return data[:-1] + bytes([data[-1] ^ 1])
        return data


class Dies(Wrapped):
    """Everything breaks when the store is asked for `verb`, before it or after it."""

    def __init__(self, inner, verb, *, after):
        super().__init__(inner)
        self.verb, self.after = verb, after

    def run(self, argv, stdin=b"", timeout_s=60.0):
        if argv[3:5] != ["store", self.verb]:
            return super().run(argv, stdin, timeout_s)
        if self.after:
            self.inner.run(argv, stdin, timeout_s)
        raise LinkLost("the link broke")

    def open(self, argv):
        if argv[3:5] == ["store", self.verb] and not self.after:
            raise LinkLost("the link broke")
        return super().open(argv)
