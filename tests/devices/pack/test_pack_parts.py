"""The parts of the runtime pack that need neither a network nor a compiler."""

from __future__ import annotations

import json
import os
import subprocess
import zipfile

import pytest

from edge import llama_cpp_sdist
from edge.devices.pack import build, llama, wheels
from edge.devices.pack.debian import Package
from edge.devices.pack.levels import LEVELS, best, named
from edge.errors import EdgeError, InputError, MissingError, UsageError

PI_4 = {"fp", "asimd", "evtstrm", "crc32"}
PI_5 = PI_4 | {"atomics", "asimdhp", "asimddp"}


def test_a_processor_gets_what_it_can_run():
    assert best(PI_4).name == "armv8.0"
    assert best(PI_5).name == "armv8.2"
    assert best(()).name == "armv8.0"
    assert all(level.needs >= {"asimd"} for level in LEVELS.values())
    with pytest.raises(UsageError, match=r"no CPU level 'x'(.|\n)*armv8.0"):
        named("x")


def run_script(folder, tmp_path, **environment):
    """What the pack's loader would be given: its arguments, then what it would find in its environment."""
    (folder / "lib").mkdir(parents=True)
    (folder / "run").write_text(build._RUN.replace("@VERSION@", "3.11"))
    loader = folder / "lib/ld-linux-aarch64.so.1"
    loader.write_text('#!/bin/sh\nprintf "%s\\n" "$@" --; env\n')
    loader.chmod(0o755)
    done = subprocess.run(
        ["sh", str(folder / "run"), "-m", "edge.runtimes.worker", "a b"],
        env={"PATH": os.environ["PATH"], **environment}, capture_output=True, text=True, cwd=tmp_path, check=True,
    )  # fmt: skip
    arguments, _, found = done.stdout.rpartition("\n--\n")
    return arguments.splitlines(), dict(line.split("=", 1) for line in found.splitlines() if "=" in line)


def test_the_pack_is_started_by_its_own_loader_from_wherever_it_lies(tmp_path):
    folder = tmp_path / "with space"
    words, found = run_script(folder, tmp_path, HOME=str(tmp_path), PYTHONPATH="/elsewhere", LD_PRELOAD="")
    assert words == [
        "--library-path", f"{folder}/lib", f"{folder}/bin/python3.11", "-m", "edge.runtimes.worker", "a b",
    ]  # fmt: skip
    assert found["PYTHONHOME"] == str(folder)
    assert found["PYTHONPATH"] == f"{folder}/site"
    assert found["ORT_DISABLE_TELEMETRY"] == "1"
    assert "LD_PRELOAD" not in found


def test_a_home_that_cannot_be_written_is_not_used(tmp_path):
    _, found = run_script(tmp_path / "pack", tmp_path, HOME="/nowhere", TMPDIR=str(tmp_path))
    assert found["HOME"] == str(tmp_path)


def test_files_of_debian_packages_find_their_places():
    place = build._placer("libc6", "3.11")
    assert str(place(build.PurePosixPath("lib/aarch64-linux-gnu/libc.so.6"))) == "lib/libc.so.6"
    assert place(build.PurePosixPath("lib/aarch64-linux-gnu/libnss_dns.so.2")) is None
    place = build._placer("libpython3.11-stdlib", "3.11")
    assert str(place(build.PurePosixPath("usr/lib/python3.11/json/tool.py"))) == "lib/python3.11/json/tool.py"
    assert place(build.PurePosixPath("usr/lib/python3.11/test/regrtest.py")) is None


def test_an_unknown_format_has_no_pack():
    with pytest.raises(EdgeError, match="no runtime for 'pdf' on arm64"):
        build.build(["pdf"], "armv8.0")


def test_what_holds_answers_to_a_form_comes_along_where_it_is_here(monkeypatch):
    with_it = {line.partition("==")[0] for line in build._requirements(("echo",), False)}
    monkeypatch.setattr(build.importlib.util, "find_spec", lambda name: None)
    without = {line.partition("==")[0] for line in build._requirements(("echo",), False)}
    assert with_it - without == {name for name, _ in build._ACTING}


class FakeApt:
    def __init__(self, pythons=(), folder=None):
        self.pythons, self.folder = pythons, folder

    def update(self):
        pass

    def has(self, name):
        return name in self.pythons

    def find(self, names):
        return tuple(Package(name, f"{name}.deb", "00") for name in names)

    def fetch(self, packages):
        from tests.devices.pack.test_debian import deb

        return tuple(deb(self.folder / package.file) for package in packages)


def test_a_distribution_without_a_python_we_know(monkeypatch, tmp_path):
    monkeypatch.setenv("EDGE_CACHE", str(tmp_path))
    monkeypatch.setattr(build, "Apt", lambda *_: FakeApt())
    with pytest.raises(EdgeError, match="apt has no Python among"):
        build.build(["echo"], "armv8.0")


def test_a_distribution_whose_packages_changed(monkeypatch, tmp_path):
    monkeypatch.setenv("EDGE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(build, "Apt", lambda *_: FakeApt({"python3.11-minimal"}, tmp_path))
    with pytest.raises(EdgeError, match="hold no ld-linux"):
        build.build(["echo"], "armv8.0")
    assert not list((tmp_path / "cache/packs").glob("*"))


def wheel(path, names):
    with zipfile.ZipFile(path, "w") as packed:
        for name in names:
            packed.writestr(name, b"x")
    return path


def test_wheels_are_unpacked_without_what_a_device_never_uses(tmp_path):
    names = ["numpy/__init__.py", "numpy/tests/test_x.py", "numpy/_core/include/x.h", "numpy-2.data/purelib/n/y.py"]
    wheels.unpack(wheel(tmp_path / "x.whl", names), tmp_path / "site")
    assert sorted(p.relative_to(tmp_path / "site").as_posix() for p in (tmp_path / "site").rglob("*.py")) == [
        "n/y.py", "numpy/__init__.py",
    ]  # fmt: skip


def test_wheels_write_nothing_outside(tmp_path):
    with pytest.raises(InputError, match=r"holds '\.\./evil\.py', which lies outside of it"):
        wheels.unpack(wheel(tmp_path / "x.whl", ["../evil.py"]), tmp_path / "site")


def test_versions_are_those_installed_here(monkeypatch):
    import numpy

    assert wheels.version_of("numpy", extra=None) == numpy.__version__
    with pytest.raises(MissingError, match=r"edge-deploy\[onnx\]"):
        wheels.version_of("no-such-package", extra="onnx")


def test_a_package_that_pip_cannot_get(monkeypatch, tmp_path):
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    with pytest.raises(EdgeError, match=r"pip finds no package for arm64 and Python 3.11: .*no-such-package"):
        wheels.download(["no-such-package==1"], "3.11", tmp_path)


def test_without_a_compiler_the_line_that_installs_it_is_named(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(MissingError, match=r"built with aarch64-linux-gnu-g\+\+(.|\n)*apt-get install"):
        llama.key()


def test_a_build_that_fails_says_why(monkeypatch, tmp_path):
    fake = tmp_path / "cmake"
    fake.write_text("#!/bin/sh\necho working; echo 'CMake Error: no compiler'; exit 1\n")
    fake.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    with pytest.raises(EdgeError, match="cannot be built for arm64: CMake Error: no compiler"):
        llama._compile(tmp_path, LEVELS["armv8.0"])


def test_the_sources_are_the_pinned_ones(monkeypatch, tmp_path):
    monkeypatch.setenv("EDGE_LLAMA_CPP_SDIST", str(tmp_path / "x.tar.gz"))
    with pytest.raises(MissingError, match=r"this needs the sources of llama.cpp(.|\n)*pip download"):
        llama_cpp_sdist.archive("this")
    (tmp_path / "x.tar.gz").write_bytes(b"other")
    with pytest.raises(InputError, match="is not the pinned llama"):
        llama_cpp_sdist.archive("this")


def test_a_manifest_is_read_as_it_was_written(tmp_path):
    (tmp_path / "run").write_text("x")
    (tmp_path / "run").chmod(0o755)
    build._write_manifest(tmp_path, "3.11", ("gguf",), LEVELS["armv8.2"], False, {"edge": "1"})
    pack = build.read(tmp_path)
    assert [(f.path, f.size_bytes, f.executable) for f in pack.files] == [("run", 1, True)]
    assert (pack.level, pack.formats, pack.python) == ("armv8.2", ("gguf",), "3.11")
    assert pack.start("/data/p") == ("sh", "/data/p/run")
    assert json.loads((tmp_path / "pack.json").read_text())["needs"] == ["asimd", "asimddp", "asimdhp"]


def test_of_older_packs_of_a_kind_one_is_kept(monkeypatch, tmp_path):
    monkeypatch.setenv("EDGE_CACHE", str(tmp_path))
    made = []
    for i, formats in enumerate([("gguf",), ("gguf",), ("onnx",), ("gguf",)]):
        folder = tmp_path / "packs" / str(i)
        folder.mkdir(parents=True)
        build._write_manifest(folder, "3.11", formats, LEVELS["armv8.2"], False, {"edge": str(i)})
        os.utime(folder / build.MANIFEST, (i, i))
        made.append(build.read(folder))
    build._forget_older(made[-1])
    assert sorted(p.name for p in (tmp_path / "packs").iterdir()) == ["1", "2", "3"]
