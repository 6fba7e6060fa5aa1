"""Rules of when a run goes to a person: pure functions, each testable alone."""

from __future__ import annotations

import pytest

from roadworthy.errors import DeclarationError
from roadworthy.escalation import TOPICS, EscalationRules, RunState
from tests.scenarios.world import Given

RULES = EscalationRules()


def trigger(rules: EscalationRules, **state: Given) -> str | None:
    judged = rules.judge(RunState(**state))
    return None if judged is None else judged.trigger


@pytest.mark.requirement("HIT-1", "GRD-6")
@pytest.mark.parametrize(
    "said",
    [
        "I want to speak to a human",
        "Can I talk with a real person please?",
        "let me speak to your manager",
        "Connect me to an agent.",
        "I need a human",
        "get me a real person NOW",
        "put me through to someone",
        "Ich möchte mit einem Menschen sprechen",
        "kann ich mit einem Mitarbeiter reden",
        "Quiero hablar con una persona",
        "Je veux parler à un conseiller",
        "transfer me to a representative",
    ],
)
def test_who_asks_for_a_person_is_understood(said: str) -> None:
    assert trigger(RULES, message=said) == "asked_for_person"


@pytest.mark.parametrize(
    "said",
    [
        "",
        "How many persons fit into the car?",
        "Where is my order A-17?",
        "The agent of the airline told me to write here",
        "I do not want to talk to a person",
        "I don't need to speak to a human",
        "Please answer without asking a human",
        "Is this for two persons or for three?",
        "human resources sent me the wrong letter",
        "My manager ordered three chairs",
        "I spoke to a person yesterday and it was fine",
        "x" * 50_000,
    ],
)
def test_others_are_not(said: str) -> None:
    assert trigger(RULES, message=said) is None


@pytest.mark.requirement("HIT-1")
def test_topics_are_declared_by_name_or_with_their_own_words() -> None:
    named = EscalationRules(topics=["legal", "safety"])
    assert trigger(named, message="You will hear from my LAWYER.") == "topic"
    assert trigger(named, message="I will end my life") == "topic"
    assert trigger(named, message="The lawyers' convention hotel") == "topic"
    assert trigger(named, message="It is legally fine") is None
    own = EscalationRules(topics={"pets": ["dogs?", "cats?"]})
    assert trigger(own, message="My dog ate it") == "topic"
    assert trigger(own, message="The category is wrong") is None
    assert set(TOPICS) >= {"legal", "complaint", "safety", "fraud"}


@pytest.mark.requirement("HIT-1", "GRD-6")
def test_what_is_measured_goes_by_its_bound() -> None:
    rules = EscalationRules(confidence_below=0.7, severity="high", limits=True, cost=True)
    assert trigger(rules, confidence=0.69) == "confidence"
    assert trigger(rules, confidence=0.7) is None
    assert trigger(rules, severity="critical") == "severity"
    assert trigger(rules, severity="medium") is None
    assert trigger(rules, repeats=3) == "repeated"
    assert trigger(rules, stop="turn_limit") == "limit"
    assert trigger(rules, stop="budget") == "cost"
    assert trigger(RULES, confidence=0.1, stop="budget") is None
    assert trigger(RULES, stop="turn_limit") is None


def test_the_gravest_reason_is_told_and_own_functions_come_last() -> None:
    def late(state: RunState) -> str | None:
        return "many calls" if state.tool_calls > 5 else None

    rules = EscalationRules(custom=[late], topics=["legal"])
    assert trigger(rules, tool_calls=6) == "custom"
    assert trigger(rules, tool_calls=6, message="my lawyer", asked="stuck") == "agent_asked"
    assert trigger(rules, tool_calls=6, message="my lawyer") == "topic"


def test_priority_and_skill_are_computed() -> None:
    rules = EscalationRules(
        priority={"topic": 1}, skill=lambda trigger, state: f"{trigger}-{state.turns}"
    )
    assert rules.priority_of("topic") == 1
    assert rules.priority_of("unknown_outcome") < rules.priority_of("asked_for_person")
    assert rules.skill_of("topic", RunState(turns=3)) == "topic-3"


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"topics": ["weather"]}, "not known by name"),
        ({"topics": "legal"}, r'topics=\["legal"\]'),
        ({"topics": {"a": []}}, "no words"),
        ({"topics": {"a": ["("]}}, "no regular expression"),
        ({"phrases": "person"}, "a list"),
        ({"priority": {"nonsense": 1}}, "no trigger"),
        ({"priority": {"topic": 0}}, "1, the first"),
        ({"severity": "grave"}, "one of low"),
        ({"confidence_below": 70}, "at most 1"),
        ({"decide_seconds": 0}, "above 0"),
        ({"queue": ""}, "default"),
        ({"topic": ["legal"]}, "did you mean `topics`"),
    ],
)
def test_a_wrong_rule_is_said_when_declared(options: dict[str, Given], says: str) -> None:
    with pytest.raises(DeclarationError, match=says):
        EscalationRules(**options)
