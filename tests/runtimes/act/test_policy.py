import dataclasses

import pytest

from edge.errors import UsageError
from edge.runtimes.act import policy
from edge.runtimes.act.manifest import Rate, Tool
from edge.runtimes.act.policy import Facts, Policy

READ = Tool("look", "Look.", {}, "read", "command", None)
WRITE = Tool("put", "Put.", {}, "write", "command", None)
RUN = Tool("go", "Go.", {}, "execute", "command", None)
YES = Policy(frozenset({"read"}))
HELD = Facts(confined_by="landlock")


def verdict(tool, facts, rules=YES):
    return policy.decide(rules, tool, facts).verdict


@pytest.mark.parametrize("planned", [False, True])
def test_what_is_not_listed_or_does_not_fit_is_never_run(planned):
    facts = Facts(planned=planned, chosen=True, confined_by="landlock")
    assert verdict(None, facts) == "deny"
    assert verdict(READ, dataclasses.replace(facts, wrong="arguments: no")) == "deny"


def test_reading_runs_unasked_only_if_it_was_allowed():
    assert verdict(READ, HELD) == "allow"
    assert verdict(READ, HELD, Policy()) == "ask"


def test_what_changes_something_is_asked_for():
    assert verdict(WRITE, HELD) == verdict(RUN, HELD) == "ask"
    planned = dataclasses.replace(HELD, planned=True, chosen=True)
    assert verdict(WRITE, planned) == verdict(RUN, planned) == "ask"


@pytest.mark.parametrize("origin", ["tool", "file"])
@pytest.mark.parametrize("tool", [READ, WRITE, RUN])
def test_words_of_others_choose_no_tool_and_make_no_reading_unasked(origin, tool):
    assert verdict(tool, dataclasses.replace(HELD, origin=origin)) == "deny"
    assert verdict(tool, dataclasses.replace(HELD, origin=origin, chosen=True)) == "ask"


def test_a_step_of_the_users_plan_reads_unasked_after_others_were_heard():
    assert verdict(READ, dataclasses.replace(HELD, origin="tool", planned=True)) == "allow"


def test_what_nothing_confines_is_asked_for():
    assert verdict(READ, Facts()) == "ask"


def test_a_rate_is_kept():
    tool = dataclasses.replace(READ, rate=Rate(2, 60.0))
    assert verdict(tool, dataclasses.replace(HELD, recent=1)) == "allow"
    assert (
        policy.decide(YES, tool, dataclasses.replace(HELD, recent=2)).reason == "it may run 2 times a minute, and has"
    )


@pytest.mark.parametrize("risk", ["write", "execute", "all"])
def test_only_reading_can_be_allowed_beforehand(risk):
    with pytest.raises(UsageError, match=f"only reading can be allowed beforehand, not {risk!r}"):
        Policy(frozenset({risk}))


def test_origins_are_compared():
    assert policy.worse("user", "tool") == "tool"
    assert policy.worse("file", "tool") == "file"
    with pytest.raises(UsageError, match="unknown origin 'web'"):
        policy.worse("user", "web")
