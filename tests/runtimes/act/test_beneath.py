import os
import threading

import pytest

from edge.runtimes.act import beneath
from edge.runtimes.act.ran import ToolError


@pytest.fixture
def folder(tmp_path):
    inside = tmp_path / "inside"
    (inside / "sub").mkdir(parents=True)
    (inside / "sub/a").write_text("inside")
    (tmp_path / "a").write_text("outside")
    os.symlink(tmp_path, inside / "up")
    os.symlink("sub", inside / "alias")
    os.symlink("/proc/self/root", inside / "root")
    return inside


@pytest.fixture(params=["kernel", "walk"])
def way(request, monkeypatch):
    """With openat2, and as on a kernel that lacks it."""
    if request.param == "walk":
        monkeypatch.setattr(beneath, "_resolved", beneath._walked)
    return request.param


def read(folder, path):
    handle = beneath.opened(folder, path, os.O_RDONLY)
    try:
        return os.read(handle, 100).decode()
    finally:
        os.close(handle)


def test_what_is_beneath_is_opened(folder, way):
    assert read(folder, "sub/a") == "inside"
    assert read(folder, "./sub//a") == "inside"
    if way == "kernel":
        assert read(folder, "alias/a") == "inside"  # a link that stays inside


@pytest.mark.parametrize("path", ["up/a", "root/etc/passwd", "up"])
def test_links_lead_nowhere_else(folder, way, path):
    with pytest.raises(ToolError, match=r"leads out of the folder, or over a link|not a directory"):
        read(folder, path)


@pytest.mark.parametrize("path", ["../a", "/etc/passwd", "sub/../../a", "sub/.."])
def test_words_lead_nowhere_else(folder, path):
    with pytest.raises(ToolError, match="is not beneath the folder"):
        read(folder, path)


@pytest.mark.parametrize("path", ["a\0b", "x" * 1001])
def test_what_is_no_path(folder, path):
    with pytest.raises(ToolError, match="that is no path"):
        read(folder, path)


def test_what_is_not_there(folder, tmp_path):
    with pytest.raises(ToolError, match="'nothing': no such file or directory"):
        read(folder, "nothing")
    with pytest.raises(ToolError, match=r"the folder .*/gone cannot be opened: No such file"):
        read(tmp_path / "gone", "a")


def test_a_folder_that_is_swapped_for_a_link_all_the_time_leads_nowhere_else(folder, tmp_path, way):
    (tmp_path / "other").mkdir()
    (tmp_path / "other/a").write_text("outside")
    over = threading.Event()

    def swap():
        while not over.is_set():
            os.rename(folder / "sub", folder / "kept")
            os.symlink(tmp_path / "other", folder / "sub")
            os.unlink(folder / "sub")
            os.rename(folder / "kept", folder / "sub")

    swapping = threading.Thread(target=swap)
    swapping.start()
    seen = set()
    try:
        for _ in range(3000):
            try:
                seen.add(read(folder, "sub/a"))
            except ToolError:
                continue
    finally:
        over.set()
        swapping.join()
    assert seen <= {"inside"}


def test_a_folder_in_which_all_is_renamed_all_the_time(folder, monkeypatch):
    class Busy:
        def syscall(self, *about):
            return -1

    monkeypatch.setattr(beneath.ctypes, "CDLL", lambda *about, **more: Busy())
    monkeypatch.setattr(beneath.ctypes, "get_errno", lambda: 11)
    with pytest.raises(ToolError, match="something is renaming folders all the time"):
        read(folder, "sub/a")
