"""Requests and answers of the API as pydantic models: the border where JSON is checked.

Invariant: unknown fields are refused, and every bound of a request is in the schema.
"""

from __future__ import annotations

import dataclasses
from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import Base64Bytes, BaseModel, ConfigDict, Field

from roadworthy.limits import Limits
from roadworthy.messages import File, UserInput
from roadworthy.result import RunResult
from roadworthy.run import RunOptions
from roadworthy.trace import plain_json

Name = Annotated[str, Field(min_length=1, max_length=200)]
Count = Annotated[int, Field(ge=1, le=1_000_000)]
Seconds = Annotated[float, Field(gt=0, le=10_000_000, allow_inf_nan=False)]


class StrictBody(BaseModel):
    """Refuses what it does not know."""

    model_config = ConfigDict(extra="forbid")


class FilePart(StrictBody):
    """A file in the input, its bytes as base64."""

    media_type: Annotated[str, Field(pattern=r"^[\w.+-]+/[\w.+-]+$", max_length=200)]
    data: Base64Bytes
    name: Annotated[str, Field(max_length=200)] = ""


class LimitsBody(StrictBody):
    """Bounds of one run; what is left out stays as the agent declares it."""

    turns: Count | None = None
    tool_calls: Count | None = None
    repeats: Annotated[int, Field(ge=2, le=1_000)] | None = None
    seconds: Seconds | None = None
    tool_seconds: Seconds | None = None
    plan_steps: Count | None = None
    result_bytes: Annotated[int, Field(ge=500, le=1_048_576)] | None = None
    usd: Annotated[float, Field(ge=0, le=1_000_000, allow_inf_nan=False)] | None = None
    tokens: Annotated[int, Field(ge=1, le=10**12)] | None = None

    def over(self, limits: Limits) -> Limits:
        """These over the given ones."""
        return dataclasses.replace(limits, **self.model_dump(exclude_none=True))


class OptionsBody(StrictBody):
    """Overrides of one run."""

    model: Name | None = None
    limits: LimitsBody | None = None
    tags: Annotated[dict[Name, Name], Field(max_length=50)] = {}
    when_busy: Literal["queue", "reject"] = "queue"
    tools: Annotated[list[Name], Field(max_length=50)] | None = None

    def options(self, declared: Limits) -> RunOptions:
        """As the runtime takes them."""
        return RunOptions(
            model=self.model,
            limits=self.limits.over(declared) if self.limits is not None else None,
            tags=self.tags,
            when_busy=self.when_busy,
            tools=self.tools,
        )


class RunRequest(StrictBody):
    """A request to an agent: text, or a list of texts and files.

    `agent` may be left out where one alone is served.
    """

    agent: Name | None = None
    input: (
        Annotated[str, Field(pattern=r"\S")]
        | Annotated[list[Annotated[str, Field(min_length=1)] | FilePart], Field(min_length=1)]
    )
    user: Name = "anonymous"
    tenant: Annotated[str, Field(max_length=200)] = ""
    conversation: Name | None = None
    options: OptionsBody = OptionsBody()

    def user_input(self) -> UserInput:
        """As the runtime takes it."""
        if isinstance(self.input, str):
            return self.input
        return [_part(item) for item in self.input]


class NewRun(RunRequest):
    """A request; with `background` the answer is the run's id, at once."""

    background: bool = False


class Resume(StrictBody):
    """Go on, under raised limits or, after a budget was raised, under the same."""

    limits: LimitsBody | None = None


class Cancel(StrictBody):
    """Who cancels."""

    by: Annotated[str, Field(max_length=200)] = ""


class Undo(StrictBody):
    """Who wants it taken back."""

    by: Name


class DecisionBody(StrictBody):
    """A person's word on a waiting call. `arguments` belong to "edit"."""

    decision: Literal["approve", "edit", "reject", "respond"]
    by: Name
    arguments: dict[str, Any] | None = None
    note: Annotated[str, Field(max_length=20_000)] = ""


class FeedbackBody(StrictBody):
    """What somebody thinks of a run. `consent`: it may become a case for evals."""

    by: Name
    kind: Literal["user", "operator"] = "user"
    rating: Literal[-1, 0, 1] = 0
    reason: Annotated[str, Field(max_length=20_000)] = ""
    correction: Annotated[str, Field(max_length=20_000)] = ""
    consent: bool = False


class LaterBody(StrictBody):
    """The result of a call that was waited for, or why there is none."""

    result: Any = None
    error: Annotated[str, Field(min_length=1, max_length=20_000)] | None = None


class Taken(BaseModel):
    """How a result was taken; `repeated`: it was there before."""

    taken: Literal["accepted", "kept", "repeated"]


class Problem(BaseModel):
    """Every error of the API: a code for programs, what happened, and how to mend it."""

    error: str
    message: str
    mend: str


class Accepted(BaseModel):
    """The run that will do it."""

    run_id: str
    status: str


class Result(BaseModel):
    """What a run came to, or what it waits for."""

    run_id: str
    status: str
    reason: str
    text: str
    output: Any = None
    report: dict[str, Any]
    usage: dict[str, Any]
    waiting: list[dict[str, Any]]
    question: str | None
    choices: list[str] = []
    conversation: str | None

    @classmethod
    def of(cls, result: RunResult[Any]) -> Result:
        """From the runtime's own."""
        return cls.model_validate(plain_json(result))


class RunSeen(BaseModel):
    """One run as it stands; `result` is its latest, null while it has none."""

    run: dict[str, Any]
    limits: dict[str, Any]
    result: Result | None


class Runs(BaseModel):
    """The newest runs first."""

    runs: list[dict[str, Any]]


class Trace(BaseModel):
    """The steps of a run in the order they began."""

    run_id: str
    steps: list[dict[str, Any]]


class Conversation(BaseModel):
    """All messages, the oldest first."""

    conversation: str
    messages: list[dict[str, Any]]


class BreakerSeen(BaseModel):
    """A tool, model or provider that is left alone, because it keeps failing at the far side."""

    name: str
    state: Literal["open", "half-open"] = Field(
        description="half-open: one call may try, or tries now"
    )
    since: datetime | None = None
    until: datetime = Field(description="From then on one call may try")
    because: str | None = Field(default=None, description="The failure that opened it, in a word")


class Health(BaseModel):
    """Whether the store can commit and runs are executed; on Postgres with the facts.

    A breaker that is not closed is no alarm: what is behind it fails, not this process.
    """

    status: Literal["ok", "alarm"] = "ok"
    alarms: list[str] | None = None
    workers: int | None = None
    lag: float | None = Field(
        default=None, description="Seconds that the oldest run waits for a worker"
    )
    waiting: int | None = None
    executing: int | None = None
    breakers: list[BreakerSeen] | None = None


def _part(item: str | FilePart) -> str | File:
    if isinstance(item, str):
        return item
    return File(media_type=item.media_type, data=item.data, name=item.name)
