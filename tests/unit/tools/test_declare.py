"""`@tool` and `tool_from_schema`: what becomes a tool, and what is refused with which mend."""

from __future__ import annotations

import dataclasses
import enum
from collections.abc import Callable, Iterator
from decimal import Decimal
from typing import Annotated, Any, Literal

import pytest
from pydantic import BaseModel, ConfigDict, Field, SecretStr

from roadworthy.agent import Tool
from roadworthy.context import RunContext, User
from roadworthy.errors import DeclarationError
from roadworthy.tools import (
    Alternative,
    AskPerson,
    Default,
    HintReader,
    LastGood,
    tool,
    tool_from_schema,
)


class Shop:
    """Dependencies of the tools below."""


class Colour(enum.Enum):
    """A closed choice."""

    RED = "red"
    BLUE = "blue"


class Line(BaseModel):
    """Nested, and by pydantic's default open."""

    sku: str
    count: int = 1


@dataclasses.dataclass
class Node:
    """Refers to itself."""

    name: str
    below: list[Node] = dataclasses.field(default_factory=list)


class Open(BaseModel):
    """Takes any field."""

    model_config = ConfigDict(extra="allow")
    sku: str


class Foreign:
    """Nothing pydantic knows."""


def everything(
    run: RunContext[Shop],
    order: str,
    colour: Colour,
    lines: list[Line],
    usd: Decimal = Decimal(1),
    mode: Literal["fast", "slow"] = "fast",
    json: str | None = None,
) -> str:
    """Do it all.

    Args:
        order: The number.
            On the receipt.
        lines (list): What was bought.

    Returns:
        A receipt.
    """
    return f"{run.key} {order} {colour} {lines} {usd} {mode} {json}"


def nothing(**_: object) -> None:
    """Stands in for a function."""


def test_bare_tool_is_irreversible_and_still_a_function() -> None:
    @tool
    def double(n: int) -> int:
        """Twice n."""
        return 2 * n

    assert (double.name, double.effect, double.takes_context) == ("double", "irreversible", False)
    assert double(n=4) == 8
    assert double.function.__annotations__["return"] == "int"


@pytest.mark.requirement("TOL-2", "TOL-8")
def test_schema_is_closed_flat_and_described() -> None:
    made = tool(effect="write")(everything)
    assert made.takes_context
    assert made.description == "Do it all.\n\nReturns: A receipt."
    assert made.parameters == {
        "type": "object",
        "properties": {
            "order": {"type": "string", "description": "The number. On the receipt."},
            "colour": {
                "enum": ["red", "blue"],
                "type": "string",
                "description": "A closed choice.",
            },
            "lines": {
                "type": "array",
                "description": "What was bought.",
                "items": {
                    "type": "object",
                    "description": "Nested, and by pydantic's default open.",
                    "properties": {
                        "sku": {"type": "string"},
                        "count": {"type": "integer", "default": 1},
                    },
                    "required": ["sku"],
                    "additionalProperties": False,
                },
            },
            "usd": {"anyOf": [{"type": "number"}, {"type": "string"}], "default": "1"},
            "mode": {"enum": ["fast", "slow"], "type": "string", "default": "fast"},
            "json": {"anyOf": [{"type": "string"}, {"type": "null"}], "default": None},
        },
        "required": ["order", "colour", "lines"],
        "additionalProperties": False,
    }


def test_recursive_type_keeps_its_definition() -> None:
    @tool(effect="read")
    def walk(node: Node) -> str:
        """Walk a tree."""
        return node.name

    assert walk.parameters["$defs"]["Node"]["additionalProperties"] is False
    values = walk.reader.read({"node": {"name": "a", "below": [{"name": "b"}]}})
    assert values["node"] == Node("a", [Node("b")])


def test_types_local_to_the_declaring_function_are_found() -> None:
    @dataclasses.dataclass
    class Local:
        x: int

    @tool
    def use(local: Local) -> int:
        """Use it."""
        return local.x

    assert use.reader.read({"local": {"x": 3}}) == {"local": Local(3)}


@pytest.mark.parametrize(
    "docstring",
    [
        "Find it.\n\nArgs:\n    order_id: such as A-17.\n    n (int): how many.\nRaises:\n    X: y",
        "Find it.\n\nParameters\n---\norder_id : str\n    such as A-17.\nn : int\n    how many.\n",
        "Find it.\n\n:param order_id: such as A-17.\n:param int n: how\n    many.\n:raises X: y",
        "Find it. order_id: such as A-17. n: how many.",
        "Find it.\norder_id: such as\nA-17.\nn: how many.",
        "Find it (order_id: such as A-17.\nn: how many.",
    ],
)
def test_parameters_are_described_in_every_style(docstring: str) -> None:
    def find(order_id: str, n: int = 1) -> str:
        return order_id * n

    find.__doc__ = docstring
    made = tool(find)
    said = {name: p.get("description") for name, p in made.parameters["properties"].items()}
    if "(" not in docstring.splitlines()[0]:
        assert made.description == "Find it."
        assert said["order_id"] == "such as A-17."
    assert said["n"] == "how many."


def test_annotated_description_wins_and_bounds_are_kept() -> None:
    @tool
    def find(n: Annotated[int, Field(ge=1, le=9, description="how many")]) -> str:
        """Find. n: ignored."""
        return str(n)

    assert find.parameters["properties"]["n"] == {
        "type": "integer", "minimum": 1, "maximum": 9, "description": "how many",
    }  # fmt: skip


def test_methods_and_async_functions_are_tools() -> None:
    class Desk:
        async def find(self, order_id: str) -> str:
            """Find an order."""
            return order_id

    assert list(tool(Desk().find).parameters["properties"]) == ["order_id"]


@pytest.mark.requirement("TOL-4")
def test_write_needs_the_key_or_harmlessness() -> None:
    def refund(order_id: str) -> str:
        """Pay back."""
        return order_id

    with pytest.raises(DeclarationError, match=r"run\.key on, or say idempotent_by_nature=True"):
        tool(effect="write")(refund)
    assert tool(effect="write", idempotent_by_nature=True)(refund).idempotent
    assert tool(effect="irreversible")(refund).effect == "irreversible"
    assert tool(effect="write")(everything).effect == "write"


def one(x: int) -> int:
    """A tool."""
    return x


def other(y: int) -> int:
    """Another tool."""
    return y


def words(text: str) -> str:
    """A third one."""
    return text


READ: dict[str, Any] = {"effect": "read"}
OTHER = tool(effect="read")(other)
WORDS = tool(effect="read")(words)
SPARE = tool(effect="read", name="spare")(one)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"retries": -1}, "retries= must not be negative"),
        ({"timeout": 0}, "timeout= is in seconds"),
        ({"timeout": float("nan")}, "timeout= is in seconds"),
        ({"cost": -1}, "cost= is in dollars"),
        ({"cost": "many"}, "no amount of dollars"),
        ({"cache_ttl": 60}, 'cache_ttl= needs effect="read"'),
        ({**READ, "cache_ttl": 0}, "cache_ttl= is in seconds"),
        ({"fallback": tool(effect="read")(other)}, "must read where it reads"),
        ({**READ, "fallback": tool(other)}, "must read where it reads"),
        ({**READ, "fallback": tool(effect="read")(one)}, "another name"),
        ({**READ, "fallback": one}, "is no tool, Alternative"),
        ({**READ, "fallback": tool(effect="read")(other)}, "gets no 'y'"),
        ({**READ, "fallback": Alternative(OTHER, arguments={"y": "z"})}, "does not exist"),
        ({**READ, "fallback": Alternative(OTHER, fixed={"y": 1})}, "has no place for 'x'"),
        ({**READ, "fallback": Alternative(OTHER, fixed={"z": 1})}, "no parameter 'z'"),
        ({**READ, "fallback": Alternative(WORDS, arguments={"text": "x"})}, "another type"),
        ({**READ, "fallback": [Default(1), LastGood(60)]}, "from best to last"),
        ({**READ, "fallback": [LastGood(60), LastGood(90)]}, "from best to last"),
        ({**READ, "fallback": [Default(1), AskPerson()]}, "ends with Default or with AskPerson"),
        ({**READ, "fallback": LastGood(0)}, "more than 0"),
        ({**READ, "fallback": Default(b"x")}, "cannot be shown"),
        ({"fallback": Default("done")}, "would claim an effect"),
        ({"fallback": LastGood(60)}, "would claim an effect"),
        ({**READ, "fallback": AskPerson("boss")}, "AskPerson"),  # type: ignore[arg-type]
        ({**READ, "concurrency": 0}, "concurrency= must be at least 1"),
        ({**READ, "reconcile": one}, "reconcile= is for effects"),
        ({"name": "ask_user"}, "belongs to the runtime"),
        ({"name": "final_answer"}, "belongs to the runtime"),
        ({"name": "1st"}, "a name is a letter"),
        ({"name": "x" * 65}, "a name is a letter"),
        ({"effect": "reads"}, "is none of"),
        ({"idempotent_by_nature": True}, 'belongs to effect="write"'),
    ],
)
def test_options_that_make_no_sense_are_refused(options: dict[str, Any], said: str) -> None:
    with pytest.raises(DeclarationError, match=said):
        tool(**options)(one)


def test_options_that_make_sense() -> None:
    made = tool(
        effect="read", timeout=5, retries=0, cost="0.01", cache_ttl=60,
        fallback=SPARE, severity="high", name="first",
        repeatable=True, polling=True,
    )(one)  # fmt: skip
    assert (made.name, made.timeout, made.retries, made.cost_nanos) == ("first", 5, 0, 10_000_000)
    assert made.fallback == (Alternative(SPARE),)


def undocumented(x: int) -> int:
    return x


def untyped(x) -> int:  # type: ignore[no-untyped-def]
    """Doc."""
    return int(x)


def many(*xs: int) -> int:
    """Doc."""
    return len(xs)


def keyed(**xs: int) -> int:
    """Doc."""
    return len(xs)


def late(x: int, run: RunContext[Shop]) -> str:
    """Doc."""
    return f"{x} {run.key}"


def foreign(x: int, thing: Foreign) -> str:
    """Doc."""
    return f"{x} {thing}"


def opened(line: Open) -> str:
    """Doc."""
    return line.sku


def secret(token: SecretStr) -> str:
    """Doc."""
    return str(token)


def positional(x: int, /) -> int:
    """Doc."""
    return x


def yields() -> Iterator[int]:
    """Doc."""
    yield 1


def fielded(x: int = Field(3)) -> int:
    """Doc."""
    return x


def unknown_type(x: Missing) -> int:  # type: ignore[name-defined]  # noqa: F821
    """Doc."""
    return int(x)


@pytest.mark.parametrize(
    ("function", "said"),
    [
        (undocumented, "'undocumented': it has no docstring"),
        (untyped, "'x' has no type. Write e.g. x: str"),
        (many, r"\*xs: .*int.* name each parameter"),
        (keyed, r"\*\*xs: .*int.* name each parameter"),
        (late, "must be its first parameter, not 'run'"),
        (foreign, "parameter 'thing' of type Foreign cannot be described"),
        (opened, "Open allows extra fields"),
        (secret, "must never handle secrets"),
        (positional, "positional-only"),
        (yields, "it yields"),
        (fielded, "Annotated"),
        (unknown_type, "'Missing' cannot be found"),
        (Foreign, "decorates a function"),
    ],
)
@pytest.mark.requirement("TOL-1")
def test_functions_that_cannot_be_tools_are_refused_with_the_mend(
    function: Callable[..., object], said: str
) -> None:
    with pytest.raises(DeclarationError, match=said):
        tool(function)


def test_docstring_of_parameters_only_is_refused() -> None:
    def find(x: int) -> int:
        """x: the number."""
        return x

    with pytest.raises(DeclarationError, match="begin with what it does"):
        tool(find)


def test_context_reaches_the_function() -> None:
    @tool
    def who(run: RunContext[None]) -> str:
        """Who asks."""
        return run.user.id

    assert who.parameters["properties"] == {}
    assert who(RunContext(run_id="r", user=User("ana"), deps=None)) == "ana"


def test_schema_tool_is_closed_at_every_level_that_lists_properties() -> None:
    given = {
        "properties": {
            "a": {"type": "object", "properties": {"x": {"type": "integer"}}},
            "free": {"type": "object"},
            "said": {"type": "object", "properties": {}, "additionalProperties": True},
        }
    }
    made = tool_from_schema("a.b", "Doc.", given, nothing, effect="read")
    assert isinstance(made, Tool)
    assert made.parameters["additionalProperties"] is False
    assert made.parameters["properties"]["a"]["additionalProperties"] is False
    assert made.parameters["properties"]["free"]["additionalProperties"] is True
    assert made.parameters["properties"]["said"]["additionalProperties"] is True
    assert "additionalProperties" not in given  # the caller's schema is not touched


@pytest.mark.parametrize(
    ("parameters", "said"),
    [
        ({"type": "array"}, "schema of type object"),
        ({"properties": {"a": {"type": "objekt"}}}, "no valid JSON schema"),
        ({"properties": {"a": {"$ref": "https://example.com/x.json"}}}, "outside the schema"),
        ({"properties": {"a": {"$ref": "#/$defs/Gone"}}}, "no valid JSON schema"),
        ({"properties": {"a": {"type": "string", "pattern": "("}}}, "no valid JSON schema"),
    ],
)
def test_schemas_that_cannot_be_checked_are_refused(parameters: dict[str, Any], said: str) -> None:
    with pytest.raises(DeclarationError, match=said):
        tool_from_schema("a", "Doc.", parameters, nothing, effect="read")


def test_schema_tool_takes_context_when_annotated() -> None:
    def call(run: RunContext[None], **arguments: object) -> str:
        return f"{run.key} {arguments}"

    assert tool_from_schema("a", "Doc.", {}, call, effect="write").takes_context
    with pytest.raises(DeclarationError, match=r"run\.key"):
        tool_from_schema("a", "Doc.", {}, nothing, effect="write")


def test_two_equal_declarations_have_the_same_schema_bytes() -> None:
    first, second = tool(effect="write")(everything), tool(effect="write")(everything)
    assert str(first.parameters) == str(second.parameters)
    assert isinstance(first.reader, HintReader)
