"""Requirements and tests point at each other, and both are right."""

import re

from tests.structure import requirements

MEND = "run `make requirements`, which fills docs/requirements.toml from the markers"


def test_every_requirement_has_a_well_formed_id_a_text_and_a_part() -> None:
    for id_, requirement in requirements.stated().items():
        assert re.fullmatch(r"[A-Z][A-Z0-9]{2}-\d+", id_), id_
        assert requirement.text, id_
        assert requirement.parts, id_


def test_every_test_listed_beside_a_requirement_exists() -> None:
    listed = {test for r in requirements.stated().values() for test in r.tests}
    assert not listed - requirements.existing(), MEND


def test_every_requirement_of_a_delivered_part_has_a_test() -> None:
    done = requirements.delivered()
    bare = [id_ for id_, r in requirements.stated().items() if r.parts & done and not r.tests]
    assert not bare, (
        "mark the tests that show these with @pytest.mark.requirement(id), then " + MEND
    )


def test_every_marker_names_a_stated_requirement() -> None:
    assert not requirements.marked().keys() - requirements.stated().keys()


def test_markers_and_page_list_the_same_tests() -> None:
    marked = requirements.marked()
    differ = {
        id_: {"marked": marked.get(id_, []), "listed": sorted(r.tests)}
        for id_, r in requirements.stated().items()
        if sorted(r.tests) != marked.get(id_, [])
    }
    assert not differ, MEND
