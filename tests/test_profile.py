"""What a machine says of itself, from captured text."""

from edge.profile import conditions, core_counts, cpu_name, features, meminfo, this_machine

PI5 = """processor\t: 0
BogoMIPS\t: 108.00
Features\t: fp asimd evtstrm aes pmull sha1 sha2 crc32 atomics fphp asimdhp cpuid asimdrdm lrcpc dcpop asimddp
CPU implementer\t: 0x41

processor\t: 1
Features\t: fp asimd atomics asimdhp asimddp

Model\t\t: Raspberry Pi 5 Model B Rev 1.0
"""
LAPTOP = """processor\t: 0
model name\t: Example  CPU @ 2.00GHz
physical id\t: 0
core id\t\t: 0
flags\t\t: fpu avx2 fma f16c hypervisor

processor\t: 1
model name\t: Example  CPU @ 2.00GHz
physical id\t: 0
core id\t\t: 0
flags\t\t: fpu avx2 fma f16c hypervisor

processor\t: 2
physical id\t: 0
core id\t\t: 1

processor\t: 3
physical id\t: 0
core id\t\t: 1
"""


def test_hyper_threads_of_one_core_count_once():
    assert core_counts(LAPTOP) == (2, 4)


def test_a_pi_has_as_many_cores_as_processors():
    assert core_counts(PI5) == (2, 2)


def test_names():
    assert cpu_name(LAPTOP) == "Example CPU @ 2.00GHz"
    assert cpu_name(PI5) == "Raspberry Pi 5 Model B Rev 1.0"
    assert cpu_name("") == ""


def test_instruction_sets_that_decide_kernels():
    assert features(LAPTOP) == ("avx2", "fma", "f16c")
    assert features(PI5) == ("asimd", "asimddp", "asimdhp", "atomics")
    assert features("nothing of the kind") == ()


def test_a_machine_from_another_root(tmp_path):
    for name, text in {
        "proc/cpuinfo": LAPTOP,
        "proc/meminfo": "MemTotal:        2048 kB\nMemAvailable:    1024 kB\nHugePages_Total:       0\n",
        "proc/loadavg": "0.52 0.58 0.59 1/598 12345\n",
        "sys/class/thermal/thermal_zone0/temp": "48312\n",
        "sys/devices/system/cpu/cpu0/cpufreq/scaling_governor": "ondemand\n",
        "sys/devices/system/cpu/cpu0/cpufreq/scaling_cur_freq": "1500000\n",
    }.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    machine = this_machine(tmp_path)
    assert (machine.cpu, machine.physical_cores, machine.logical_cores) == ("Example CPU @ 2.00GHz", 2, 4)
    assert (machine.ram_bytes, machine.governor, machine.virtual) == (2 << 20, "ondemand", True)
    now = conditions(tmp_path)
    assert (now.load_average, now.available_bytes) == (0.52, 1 << 20)
    assert (now.temperature_c, now.frequency_mhz) == (48.312, 1500.0)
    assert machine.record()["features"] == ["avx2", "fma", "f16c"]


def test_an_empty_root_gives_no_facts_and_no_error(tmp_path):
    machine = this_machine(tmp_path)
    assert (machine.ram_bytes, machine.governor, machine.features) == (None, None, ())
    assert conditions(tmp_path).record() == dict.fromkeys(conditions(tmp_path).record())


def test_meminfo_leaves_out_what_has_no_unit():
    assert meminfo("VmHWM:\t  12 kB\nThreads:\t4\n") == {"VmHWM": 12288}
