"""Android's tools through the stock `adb` to a test phone, whose `am` writes down the words it was given."""

import pytest

from edge.runtimes.act import manifest
from edge.runtimes.act.hands import Hands, Planned
from edge.runtimes.tool_calls import ToolCall
from tests.rigs.adbd import client, tree
from tests.rigs.adbd.client import Adb
from tests.rigs.adbd.device import Device

pytestmark = pytest.mark.rig
AM = """#!/system/bin/sh
for word in "$@"; do printf '[%s]\\n' "$word"; done > /data/local/tmp/words
case "$*" in
*gone*) echo "Error: Activity not started, unable to resolve Intent" >&2 ;;
*) echo "Starting: Intent" ;;
esac
"""


@pytest.fixture(scope="module")
def phone(tmp_path_factory):
    if reason := tree.missing() or client.missing():
        pytest.skip(reason)
    folder = tmp_path_factory.mktemp("phone")
    with pytest.MonkeyPatch.context() as patch, Adb(folder / "adb") as adb:
        for name, value in adb.environment.items():
            patch.setenv(name, value)
        patch.delenv("ANDROID_SERIAL", raising=False)
        with Device(tree.Tree(folder / "tree")) as device:
            am = folder / "tree/system/bin/am"
            am.write_text(AM)
            am.chmod(0o755)
            adb("connect", device.serial)
            yield device, folder / "tree/data/local/tmp/words"
            adb("disconnect", device.serial)


@pytest.fixture
def call(phone, tmp_path):
    tools = manifest.read(f"android:{phone[0].serial}")
    with Hands(tools, ask=lambda q: True, state=tmp_path) as hands:
        hands.plan([Planned(tool) for tool in tools.tools])
        yield lambda tool, **arguments: hands.perform(ToolCall(tool, arguments), origin="user")


@pytest.mark.parametrize("text", ["see you at 8", 'it\'s $(reboot); `id` & "x" > /data/x', "a\nb", "-n com.evil/.Main"])
def test_a_message_is_one_word_on_the_phone(phone, call, text):
    outcome = call("write_message", number="+49 30 123", text=text)
    assert outcome.status == "done", outcome
    words = phone[1].read_text()
    assert words == (
        "[start]\n[-a]\n[android.intent.action.SENDTO]\n[-d]\n[smsto:+4930123]\n[--es]\n[sms_body]\n" + f"[{text}]\n"
    )


def test_an_alarm_reaches_the_phone(phone, call):
    assert call("phone_alarm", hour=7, minute=5, label="tea; reboot").text == "the phone rings at 07:05"
    assert "[tea; reboot]" in phone[1].read_text()


def test_what_the_phone_cannot_do_is_said(call):
    assert call("open_page", url="http://gone/").reason.startswith(
        "the phone cannot do that: Error: Activity not started"
    )


def test_a_program_that_the_phone_lacks_is_said(call):
    assert call("list_apps").reason.startswith("the phone did not do it: ")


def test_a_phone_tells_its_charge(call):
    assert call("read_battery").text.endswith(" %")
