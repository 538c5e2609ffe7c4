"""What Android's services say about battery and heat: text of `dumpsys`, understood.

Its shell user may not read /sys/class/power_supply and, on many phones, no thermal zone either.
"""

from __future__ import annotations

import re

_STATUS = {1: "Unknown", 2: "Charging", 3: "Discharging", 4: "Not charging", 5: "Full"}  # BatteryManager's numbers
_CPU = 0  # a kind of sensor, android.os.Temperature.TYPE_CPU


def battery(text: str) -> tuple[int | None, str | None]:
    """Percent and status of `dumpsys battery`, the status in the words of Linux.

    >>> battery("  status: 2\\n  level: 41\\n  scale: 50\\n")
    (82, 'Charging')
    """
    found = {key: int(n) for key, n in re.findall(r"^\s*(level|scale|status): (\d+)$", text, re.MULTILINE)}
    if "level" not in found:
        return None, None
    return round(100 * found["level"] / (found.get("scale") or 100)), _STATUS.get(found.get("status", 0))


def thermal(text: str) -> tuple[int | None, float | None]:
    """How much the system slows down (0 not at all ... 6 shutdown), and the hottest core in degrees Celsius.

    >>> thermal("Thermal Status: 1\\nTemperature{mValue=41.7, mType=0, mName=cpu0, mStatus=0}")
    (1, 41.7)
    """
    status = re.search(r"^Thermal Status: (\d+)", text, re.MULTILINE)
    cores = re.findall(rf"Temperature\{{mValue=(-?[\d.]+), mType={_CPU},", text)
    return int(status[1]) if status else None, max(map(float, cores), default=None)
