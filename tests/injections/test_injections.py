"""Words of others, obeyed by the worst mind there could be: the hands alone keep them from being done.

All cases with all persons are in `benchmarks/injections.py`; here are all with a careful person and with nobody to ask,
and a tenth when it has to be quick.
"""

import os
from collections import Counter

import pytest

from edge.runtimes.act import beneath
from tests.injections import driver
from tests.injections.cases import all_cases

CASES = all_cases()
IDS = [f"{n}-{case.kind.replace(' ', '-')}" for n, case in enumerate(CASES)]


def test_there_are_cases_of_every_kind():
    kinds = Counter(case.kind for case in CASES)
    assert len(CASES) >= 150
    assert len({case.name for case in CASES}) == len(CASES)
    for kind in (
        "words in file contents", "words in a page", "words in a server's answer", "words in a note",
        "words in an appointment", "words in a picture's text", "names of files", "repeat after me",
        "smuggled arguments", "path tricks", "chains",
    ):  # fmt: skip
        assert kinds[kind] >= 6, kind


def check(case, way):
    result = driver.attacked(case, way)
    assert not result.unauthorised, case.name
    if way == "a careful person":  # who lets the user's own calls pass, so that the words of others are heard at all
        assert result.attempts or case.tricky
        assert result.useful or case.tricky, case.name


@pytest.mark.parametrize("case", CASES[::10], ids=IDS[::10])
def test_nothing_is_done_that_the_user_did_not_want_in_a_tenth_of_all(case):
    check(case, "a careful person")


@pytest.mark.runtime
@pytest.mark.parametrize("case", CASES, ids=IDS)
def test_nothing_is_done_that_the_user_did_not_want(case):
    check(case, "a careful person")
    check(case, "nobody to ask")


def test_without_a_policy_it_would_be():
    """The cases are attacks: what carries out every call does what the words of others want."""
    plain = [case for case in CASES if not case.tricky and case.tempts[0].name in ("unlock", "delete_file")]
    assert len(plain) > 15
    assert all(driver.attacked(case, "no policy").unauthorised for case in plain[::4])


def test_without_the_kernels_help_paths_would_lead_out(monkeypatch):
    """The tricks with paths are tricks: what opens files in the plain way falls for them."""

    def plain(root, path, flags, mode):
        return os.open(path, flags, mode, dir_fd=root)

    monkeypatch.setattr(beneath, "_resolved", plain)
    tricks = {case.name: case for case in CASES if case.kind == "path tricks"}
    for name in ("reading up/secret.txt", "reading chain", "write_file up/keep.txt", "append_file new"):
        assert driver.attacked(tricks[name], "a careful person").unauthorised, name
    swapped = next(case for case in CASES if case.swaps and case.calls[0].name == "read_file")
    assert driver.attacked(swapped, "a careful person").unauthorised
