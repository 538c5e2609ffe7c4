"""Battery and heat of Android, from what its services print."""

from __future__ import annotations

import pytest

from edge.devices import dumpsys, facts
from tests.rigs.adbd import tree

UNPLUGGED = """Current Battery Service state:
  AC powered: false
  USB powered: false
  Max charging current: 0
  status: 3
  health: 2
  present: true
  level: 7
  scale: 100
  voltage: 3512
  temperature: 355
  technology: Li-ion
"""
HOT = """IsStatusOverride: false
ThermalEventListeners:
\tcallbacks: 1
Thermal Status: 3
Cached temperatures:
\tTemperature{mValue=46.9, mType=3, mName=VIRTUAL-SKIN, mStatus=3}
\tTemperature{mValue=88.0, mType=0, mName=BIG, mStatus=0}
\tTemperature{mValue=-0.5, mType=0, mName=LITTLE, mStatus=0}
\tTemperature{mValue=35.5, mType=2, mName=battery, mStatus=0}
"""


@pytest.mark.parametrize(
    ("text", "found"),
    [
        (UNPLUGGED, (7, "Discharging")),
        (tree.BATTERY, (84, "Charging")),
        ("Can't find service: battery\n", (None, None)),
    ],
)
def test_battery(text, found):
    assert dumpsys.battery(text) == found


@pytest.mark.parametrize(("text", "found"), [(HOT, (3, 88.0)), (tree.THERMAL, (0, 41.7)), ("", (None, None))])
def test_heat(text, found):
    assert dumpsys.thermal(text) == found


def test_services_answer_where_files_may_not_be_read():
    state = facts.parse_state({"thermal": HOT, "power": UNPLUGGED})
    assert (state.battery_percent, state.battery_status) == (7, "Discharging")
    assert (state.thermal_status, state.temperature_c) == (3, 88.0)


@pytest.mark.rig
def test_a_phone_says_what_it_is_and_how_it_is(adb_rig):
    from edge.devices.address import connect

    asked = facts.ask(connect(f"adb:{adb_rig.serial}"))
    assert (asked.model, asked.system, asked.emulated) == ("Edge Test Phone", "Android 14", True)
    assert "asimddp" in asked.profile.features
    assert asked.state is not None
    assert (asked.state.battery_percent, asked.state.thermal_status) == (84, 0)
