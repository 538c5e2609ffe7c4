"""Which family a checkpoint is of; what makes one that acts."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from edge.errors import UsageError
from edge.export import families
from edge.export.families import dense, lam
from edge.find import load, names
from edge.runtimes.chat_template import ChatTemplate
from tests.tiny_bundle import tiny_bundle

SHOWS = "{% for t in tools or [] %}{{ t.function.name }}{% endfor %}{{ messages[0].content }}"


@pytest.mark.parametrize("name", names("edge.export.families"))
def test_every_family_says_what_the_others_ask_of_it(name):
    family = load("edge.export.families", name)
    assert isinstance(family.MODEL_TYPES, tuple)
    assert all(callable(getattr(family, f)) for f in ("label", "load_reference", "facts"))


def test_no_model_type_is_of_two_families():
    types = [t for name in names("edge.export.families") for t in load("edge.export.families", name).MODEL_TYPES]
    assert len(types) == len(set(types))


def test_an_unknown_model_type_is_refused_with_what_there_is():
    with pytest.raises(UsageError, match="of the model type 'mamba', which this edge does not export") as err:
        families.of({"model_type": "mamba"}, "here")
    assert "llama" in (err.value.hint or "")


@pytest.mark.parametrize(
    ("template", "label"),
    [
        (SHOWS, "lam"),
        ("{{ messages[0].content }}", "slm"),
        ("{{ raise_exception('no tools') if tools }}", "slm"),
        ("{% for %}", "slm"),
        (None, "slm"),
    ],
)
def test_a_template_that_shows_tools_makes_a_model_that_acts(tmp_path, template, label):
    tiny_bundle(tmp_path, template=None)
    if template is not None:
        (tmp_path / "chat_template.jinja").write_text(template)
    assert dense.label(SimpleNamespace(folder=tmp_path, n_parameters=10)) == label


def test_a_template_that_looks_at_tools_but_hides_them_does_not_count():
    assert not lam.shows_tools(ChatTemplate("{{ tools | length if tools }}{{ messages[0].content }}"))
