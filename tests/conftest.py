import os
import signal

from hypothesis import HealthCheck, settings

os.environ["ORT_DISABLE_TELEMETRY"] = "1"

# `nohup make test &` lets all that it starts ignore Ctrl-C and hanging up, which are among what is tested.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:
    signal.signal(signal.SIGHUP, signal.SIG_DFL)

# Machines differ in speed; a slow draw says nothing about the code. The same cases on every run.
settings.register_profile("edge", deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("edge")


def pytest_configure(config):
    """Workers that run side by side have cores of their own: threads of runtimes spin where they share one."""
    worker, n = os.environ.get("PYTEST_XDIST_WORKER", ""), int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
    if worker and hasattr(os, "sched_setaffinity"):
        cores = sorted(os.sched_getaffinity(0))
        first = int(worker.removeprefix("gw"))
        os.sched_setaffinity(0, cores[first::n] or [cores[first % len(cores)]])


def pytest_xdist_make_scheduler(config, log):
    """One worker takes all of a file, which makes its exports once, and one takes every stand-in for a device."""
    from xdist.scheduler import LoadFileScheduling

    together = () if "not rig" in config.option.markexpr else ("tests/devices/", "tests/rigs/")

    class ByNeed(LoadFileScheduling):
        def _split_scope(self, nodeid):
            return "devices" if nodeid.startswith(together) else super()._split_scope(nodeid)

    return ByNeed(config, log)
