"""What the kernel counts of time, memory and energy, from captured text."""

import dataclasses

import pytest

from edge.runtimes import energy, noise, smaps
from edge.runtimes.noise import Look

SMAPS = """\
7f0000000000-7f0000100000 r--s 00000000 08:01 1234                       /data/my model/model.gguf
Size:               1024 kB
Rss:                1000 kB
Pss:                 500 kB
Anonymous:             0 kB
Swap:                  0 kB
VmFlags: rd sh mr mw me ms
7f0000100000-7f0000200000 rw-p 00010000 08:01 99                         /usr/lib/libllama.so
Rss:                 300 kB
Pss:                 200 kB
Anonymous:           100 kB
Swap:                  8 kB
7f0000200000-7f0000300000 rw-p 00000000 00:00 0
Rss:                 700 kB
Pss:                 700 kB
Anonymous:           700 kB
Swap:                  0 kB
7ffd00000000-7ffd00020000 rw-p 00000000 00:00 0                          [stack]
Rss:                  20 kB
Pss:                  20 kB
Anonymous:            20 kB
"""


def test_memory_by_kind_adds_up_to_what_is_resident():
    found = smaps.held(SMAPS, ["/data/my model/"])
    assert found.weights == 1000 << 10
    assert found.libraries == 200 << 10  # what was written to is this process' own
    assert found.private == 820 << 10
    assert found.weights + found.libraries + found.private == found.rss == 2020 << 10
    assert (found.pss, found.swapped) == (1420 << 10, 8 << 10)
    assert smaps.held(SMAPS, []).weights == 0
    assert smaps.held("", ["/"]).rss == 0


def test_this_process_has_memory():
    found = smaps.of_this_process([])
    assert found is not None
    assert found.weights + found.libraries + found.private == found.rss > 1 << 20


QUIET = Look(100.0, 80.0, 1.0, 10.0, 5, 50.0, 1000.0, 60.0)


def later(**changes):
    """Ten seconds of two processors later: four busy, three of them our own."""
    spent = {"total_s": 110.0, "idle_s": 86.0, "own_s": 13.0, "monotonic_s": 55.0, "wall_s": 1005.0}
    return dataclasses.replace(QUIET, **{**spent, "awake_and_asleep_s": 65.0, **changes})


def test_what_others_used_is_what_this_process_did_not():
    found = noise.between(QUIET, later())
    assert found["others_share"] == pytest.approx(0.1)  # 4 of 10 s busy, 3 of them ours
    assert found["stolen_share"] == 0
    assert (found["clock_jumped_s"], found["asleep_s"], found["swapped_pages"]) == (0.0, 0.0, 0)


def test_time_that_the_hypervisor_took_is_nobodys_work():
    found = noise.between(QUIET, later(stolen_s=2.0))
    assert found["stolen_share"] == pytest.approx(0.1)
    assert found["others_share"] == pytest.approx(0.0)


@pytest.mark.parametrize(("wall", "jumped"), [(1005.1, 0.0), (1008.0, 3.0), (405.0, -600.0)])
def test_a_clock_that_jumps_is_noticed(wall, jumped):
    assert noise.between(QUIET, later(wall_s=wall))["clock_jumped_s"] == pytest.approx(jumped)


def test_a_closed_laptop_is_no_jump():
    found = noise.between(QUIET, later(wall_s=1305.0, awake_and_asleep_s=365.0))
    assert found["asleep_s"] == pytest.approx(300.0)
    assert found["clock_jumped_s"] == 0.0


def test_swapping_is_counted():
    assert noise.between(QUIET, later(swapped_pages=9))["swapped_pages"] == 4


def test_a_kernel_that_tells_nothing(tmp_path):
    a = noise.look(tmp_path)
    b = noise.look(tmp_path)
    assert noise.between(a, b)["others_share"] is None
    assert noise.between(a, b)["stolen_share"] is None


def write(root, name, text):
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def test_a_processor_that_counts_its_energy(tmp_path):
    zone = "sys/class/powercap/intel-rapl:0"
    for name, text in (("name", "package-0\n"), ("energy_uj", "5000000\n"), ("max_energy_range_uj", "262143000000\n")):
        write(tmp_path, f"{zone}/{name}", text)
    found = energy.find(tmp_path)
    assert found is not None
    assert (found.name, found.counts, found.read()) == ("RAPL package-0 (processor)", True, 5.0)
    assert energy.joules(found, [(0.0, 5.0), (1.0, 262143.0), (2.0, 1.0)]) == pytest.approx(262139.0)


def test_a_battery_counts_only_while_it_is_emptied(tmp_path):
    at = "sys/class/power_supply/BAT0"
    for name, text in (("type", "Battery"), ("status", "Discharging"), ("current_now", "-500000"),
                       ("voltage_now", "4000000")):  # fmt: skip
        write(tmp_path, f"{at}/{name}", text)
    found = energy.find(tmp_path)
    assert found is not None
    assert found.name == "battery BAT0 (whole machine)"
    assert found.read() == pytest.approx(2.0)
    write(tmp_path, f"{at}/power_now", "3000000")
    assert found.read() == pytest.approx(3.0)
    write(tmp_path, f"{at}/status", "Charging")
    assert found.read() is None
    assert energy.find(tmp_path) is None


def test_energy_from_one_reading_is_none(tmp_path):
    assert energy.find(tmp_path) is None
    assert energy.joules(energy.Source("x", True, lambda: 1.0), [(0.0, 1.0)]) is None
    assert energy.rails_watts("vcgencmd: command not found") is None
