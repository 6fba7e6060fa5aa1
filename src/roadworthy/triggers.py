"""When a run should go to a person: `EscalationRules`, judged on what is known of the run.

Declared on an `Agent`, asked by the loop. Invariant: `judge` is a pure function, so a resumed run
decides alike and a rule can be tested alone.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Literal, TypeAlias, get_args

from roadworthy.errors import DeclarationError
from roadworthy.messages import JsonObject
from roadworthy.spelling import spelled

Trigger: TypeAlias = Literal[
    "asked_for_person",
    "topic",
    "confidence",
    "repeated",
    "severity",
    "verdict",
    "agent_asked",
    "limit",
    "cost",
    "custom",
    "takeover",
    "approval",
    "unknown_outcome",
    "tool_failed",
    "version",
    "poison",
]
PRIORITIES: Mapping[Trigger, int] = {
    "unknown_outcome": 10,
    "severity": 20,
    "takeover": 20,
    "poison": 30,
    "topic": 30,
    "verdict": 40,
    "approval": 50,
    "tool_failed": 50,
    "asked_for_person": 50,
    "agent_asked": 60,
    "confidence": 70,
    "repeated": 70,
    "version": 80,
    "limit": 80,
    "cost": 80,
    "custom": 60,
}
"""What comes first in the queue, 1 before 100, unless rules say otherwise."""
SEVERITIES = ("low", "medium", "high", "critical")

TOPICS: Mapping[str, tuple[str, ...]] = {
    "legal": (
        r"lawyers?",
        r"attorneys?",
        r"legal action",
        r"law ?suits?",
        r"sue (?:you|your)",
        r"small claims",
        r"rechtsanw[aä]lt\w*",
        r"abogad[oa]s?",
        r"avocats?",
    ),
    "complaint": (
        r"formal complaint",
        r"complain(?:t|ing)?",
        r"unacceptable",
        r"beschwer\w*",
        r"reclamaci[oó]n\w*",
        r"r[eé]clamation\w*",
        r"ombudsman",
    ),
    "safety": (
        r"suicid\w*",
        r"kill myself",
        r"self[- ]harm",
        r"hurt myself",
        r"end my life",
        r"emergency",
        r"selbstmord\w*",
    ),
    "press": (r"journalists?", r"reporters?", r"newspapers?", r"go(?:ing)? public"),
    "privacy": (r"gdpr", r"dsgvo", r"delete (?:all )?my data", r"data protection"),
    "fraud": (r"fraud\w*", r"stolen (?:card|account|identity)", r"unauthori[sz]ed", r"hacked"),
}
"""Topics known by name; others are declared with their own words."""
_PERSON = (
    r"(?:speak|talk|chat|write|connect(?: me)?|put me through|transfer(?: me)?|escalate(?: this)?)"
    r"(?: \w+){0,3} (?:to|with) (?:an? |the |your |some ?)?(?:real |actual |live |human )*"
    r"(?:human|person|someone|somebody|agent|representative|rep|operator|manager|supervisor|"
    r"employee|staff|people)",
    r"(?:want|need|get me|give me|prefer|like|where is|is there) (?:an? |the |your )?"
    r"(?:real |actual |live )*(?:human|person|representative|operator|manager|supervisor)",
    r"(?:real|actual|live) (?:human|person)s?\b(?! (?:resources|error))",
    r"human (?:agent|being|support|help|please)",
    r"(?:mit|zu) (?:eine[mr] |de[mr] )?(?:echten )?(?:menschen|mitarbeiter\w*|vorgesetzten)",
    r"(?:hablar|comunicarme) con (?:una? |la )?(?:persona|humano|agente|representante)",
    r"parler (?:à|a|avec) (?:une? |la )?(?:personne|humain|conseiller|responsable)",
)
_NOT_ASKED = re.compile(
    r"(?:\bnot|n[\u2019']t|\bnever|\bwithout|\brather than|\binstead of)(?: \w+){0,4} ?$",
    re.IGNORECASE,
)
_ASKS_PERSON = re.compile(rf"\b(?:{'|'.join(_PERSON)})", re.IGNORECASE)


@dataclass(frozen=True, kw_only=True)
class RunState:
    """What a trigger may look at: as much as is known at the place where it is asked.

    message: the user's newest words. confidence: 0 to 1 of an answer about to be given; None until
    something measures it. repeats: how often the same state came. severity: of the call about to
    be made. verdict: what a guardrail objected. asked: the agent's own reason for a person. stop:
    the limit that is reached. usd: spent so far, in dollars.
    """

    message: str = ""
    confidence: float | None = None
    repeats: int = 0
    severity: Literal["low", "medium", "high", "critical"] | None = None
    verdict: str = ""
    asked: str = ""
    stop: Literal["", "turn_limit", "tool_call_limit", "time_limit", "budget"] = ""
    turns: int = 0
    tool_calls: int = 0
    usd: float = 0.0


@dataclass(frozen=True)
class Judged:
    """That a person is needed. why: plain words, for that person."""

    trigger: Trigger
    why: str


@spelled
@dataclass(frozen=True)
class EscalationRules:
    """When an agent's runs go to a person, and to whom. Data; nothing here needs a model.

    asked_for_person: the user says so (English, German, Spanish, French phrases; your own words
    in `phrases`). topics: names of `TOPICS`, or your own as name -> words (regular expressions,
    whole words, any case). repeats: the agent comes to the same state for the last allowed time
    (`Limits.repeats`). confidence_below: of an answer, once something measures it; off by default.
    severity: of a call: from this one on an operator approves it first. limits: a turn, call or
    time limit is reached; cost: a budget is. Off by default: a partial answer at once is worth
    more than a person later. custom: own pure functions of the `RunState`, giving the reason or
    None; before each turn they see message, turns, tool_calls and usd.

    queue, skill: where it is put, and what who takes it must know; skill may be a function of
    (trigger, RunState). priority: by trigger, 1 first, over `PRIORITIES`. notice: what the user is
    told when a person is called in; empty, the default: nothing, they see no seam.
    decide_seconds: an approval, also the user's own, that nobody gave by then is a "no".
    Raises: DeclarationError: no such topic, trigger or severity.
    """

    asked_for_person: bool = True
    phrases: Sequence[str] = ()
    topics: Sequence[str] | Mapping[str, Sequence[str]] = ()
    repeats: bool = True
    confidence_below: float | None = None
    severity: Literal["low", "medium", "high", "critical"] | None = None
    limits: bool = False
    cost: bool = False
    custom: Sequence[Callable[[RunState], str | None]] = ()
    queue: str = "default"
    skill: str | Callable[[Trigger, RunState], str] = ""
    priority: Mapping[Trigger, int] = field(default_factory=dict)
    notice: str = ""
    decide_seconds: float | None = None
    _words: Mapping[str, re.Pattern[str]] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        _check(self)
        object.__setattr__(self, "_words", _patterns(self))

    def judge(self, state: RunState) -> Judged | None:
        """The first reason for a person, in this order: the agent or a guardrail, the user's words,
        what is measured, limits, own functions; None: none of the declared."""
        return (
            self._asked(state)
            or self._worded(state)
            or self._measured(state)
            or self._stopped(state)
            or self.judge_custom(state)
        )

    def priority_of(self, trigger: Trigger) -> int:
        """1 first."""
        return self.priority.get(trigger, PRIORITIES[trigger])

    def asks_operator(self, severity: str) -> bool:
        """Whether an operator must agree to a call of this severity."""
        bound = self.severity
        return bound is not None and SEVERITIES.index(severity) >= SEVERITIES.index(bound)

    def skill_of(self, trigger: Trigger, state: RunState) -> str:
        """What who takes it must know."""
        return self.skill(trigger, state) if callable(self.skill) else self.skill

    def declared(self) -> JsonObject:
        """As data; functions by name."""
        plain = {f.name: getattr(self, f.name) for f in fields(self) if f.name[0] != "_"}
        plain["custom"] = [getattr(each, "__qualname__", str(each)) for each in self.custom]
        plain["skill"] = getattr(self.skill, "__qualname__", self.skill)
        plain["topics"] = _listed(self.topics)
        plain["phrases"] = list(self.phrases)
        return {**plain, "priority": dict(self.priority)}

    def _asked(self, state: RunState) -> Judged | None:
        if state.asked:
            return Judged("agent_asked", state.asked)
        if state.verdict:
            return Judged("verdict", state.verdict)
        return None

    def _worded(self, state: RunState) -> Judged | None:
        """What the user's words say."""
        if self.asked_for_person and _asks_for_person(state.message, self._words.get("")):
            return Judged("asked_for_person", "The user asked for a person.")
        for topic, words in self._words.items():
            if topic and words.search(state.message):
                return Judged("topic", f"The user wrote about: {topic}.")
        return None

    def _measured(self, state: RunState) -> Judged | None:
        bound, known = self.confidence_below, state.confidence
        if bound is not None and known is not None and known < bound:
            return Judged("confidence", f"Confidence {known:.2f} is below {bound:.2f}.")
        if state.severity is not None and self.asks_operator(state.severity):
            return Judged("severity", f"The action is of {state.severity} severity.")
        if self.repeats and state.repeats:
            times = f"{state.repeats} times"
            return Judged("repeated", f"The agent came to the same state {times}.")
        return None

    def _stopped(self, state: RunState) -> Judged | None:
        if state.stop == "budget":
            return Judged("cost", "A budget is reached.") if self.cost else None
        if state.stop and self.limits:
            return Judged("limit", f"The agent reached its {state.stop.replace('_', ' ')}.")
        return None

    def judge_custom(self, state: RunState) -> Judged | None:
        """What your own functions say, asked before each turn."""
        for function in self.custom:
            why = function(state)
            if why:
                return Judged("custom", why)
        return None


def _asks_for_person(message: str, phrases: re.Pattern[str] | None) -> bool:
    if phrases is not None and phrases.search(message):
        return True
    return any(
        not _NOT_ASKED.search(message[: found.start()]) for found in _ASKS_PERSON.finditer(message)
    )


def _listed(topics: Sequence[str] | Mapping[str, Sequence[str]]) -> JsonObject | list[str]:
    if isinstance(topics, Mapping):
        return {name: list(words) for name, words in topics.items()}
    return list(topics)


def _patterns(rules: EscalationRules) -> Mapping[str, re.Pattern[str]]:
    """By topic; under "" the phrases that ask for a person."""
    named: dict[str, Sequence[str]] = {"": rules.phrases} if rules.phrases else {}
    if isinstance(rules.topics, Mapping):
        named.update(rules.topics)
    else:
        named.update((topic, TOPICS[topic]) for topic in rules.topics)
    return {name: _compiled(name, words) for name, words in named.items()}


def _compiled(topic: str, words: Sequence[str]) -> re.Pattern[str]:
    try:
        return re.compile(rf"(?<!\w)(?:{'|'.join(words)})(?!\w)", re.IGNORECASE)
    except re.error as error:
        what = f"topics[{topic!r}]" if topic else "phrases"
        raise DeclarationError(
            f"EscalationRules: {what} is no regular expression ({error}). Escape what is meant "
            "as it stands, such as \\."
        ) from None


def _check(rules: EscalationRules) -> None:
    known = isinstance(rules.topics, Mapping)
    if isinstance(rules.topics, str):
        raise DeclarationError(f'EscalationRules: write topics=["{rules.topics}"], a list.')
    if isinstance(rules.phrases, str):
        raise DeclarationError(f'EscalationRules: write phrases=["{rules.phrases}"], a list.')
    for topic in rules.topics:
        if not known and topic not in TOPICS:
            raise DeclarationError(
                f"EscalationRules: topic {topic!r} is not known by name; known are "
                f"{', '.join(sorted(TOPICS))}. Declare it with its words: "
                f'topics={{"{topic}": ["some", "words"]}}.'
            )
        if isinstance(rules.topics, Mapping) and not [*rules.topics[topic]]:
            raise DeclarationError(f"EscalationRules: topic {topic!r} has no words.")
    for trigger, number in rules.priority.items():
        if trigger not in get_args(Trigger):
            raise DeclarationError(
                f"EscalationRules: {trigger!r} is no trigger: {', '.join(get_args(Trigger))}."
            )
        if type(number) is not int or not 1 <= number <= 1_000:
            raise DeclarationError(f"EscalationRules: priority {number!r}: 1, the first, to 1000.")
    if rules.severity is not None and rules.severity not in SEVERITIES:
        raise DeclarationError(
            f"EscalationRules: severity={rules.severity!r}: one of {', '.join(SEVERITIES)}."
        )
    _check_numbers(rules)


def _check_numbers(rules: EscalationRules) -> None:
    bound = rules.confidence_below
    if bound is not None and not 0 < bound <= 1:
        raise DeclarationError(f"EscalationRules: confidence_below={bound!r}: above 0, at most 1.")
    if rules.decide_seconds is not None and not rules.decide_seconds > 0:
        raise DeclarationError(
            f"EscalationRules: decide_seconds={rules.decide_seconds!r}: seconds above 0, or None."
        )
    if not rules.queue:
        raise DeclarationError('EscalationRules: queue="" is no name; leave it out for "default".')
