"""What may start a bundle: the program that is asked for by name, and what it cannot do."""

from __future__ import annotations

import dataclasses

import pytest

from edge import bundle as bundles
from edge.cli import main
from edge.devices import facts, runner
from edge.devices.install import Wishes, flash
from edge.errors import DeviceError, UsageError
from edge.progress import Silent
from tests.tiny_bundle import IMAGE, tiny_bundle


def test_llama_cpp_alone_refuses_what_it_cannot_do(memory, tmp_path, capsys):
    tiny_bundle(tmp_path / "tiny")
    with pytest.raises(UsageError, match=r"alone runs GGUF bundles; tiny is echo(.|\n)*leave --runner out"):
        flash(tmp_path / "tiny", memory, Wishes(runner=runner.ALONE))
    bundle = dataclasses.replace(bundles.read(tmp_path / "tiny"), format="gguf")
    there = facts.ask(memory)

    def choose(bundle=bundle, there=there, **options):
        runner.choose(bundle, there, Silent(), wanted=runner.ALONE, **options)

    with pytest.raises(UsageError, match=r"tiny sees pictures, which llama\.cpp alone does not"):
        choose(dataclasses.replace(bundle, image=IMAGE))
    with pytest.raises(UsageError, match=r"a service serves(.|\n)*edge remove DEVICE --service"):
        choose(serves=True)
    with pytest.raises(DeviceError, match=r"no llama\.cpp alone for .* \(32 bit\), only for arm64"):
        choose(there=dataclasses.replace(there, bits=32))
    assert main(["flash", str(tmp_path / "tiny"), "image:x", "--runner", "llama.cpp"]) == 2
    assert "--runner is for devices that are there" in capsys.readouterr().err
