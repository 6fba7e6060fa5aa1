"""Reads a tool function's signature and docstring into name, description, schema and reader.

Used by `declare`. Invariant: every parameter the model may fill is typed and has a JSON schema.
"""

from __future__ import annotations

import inspect
import sys
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import FrameType
from typing import Annotated, Any, NoReturn, get_args, get_origin, get_type_hints

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, create_model
from pydantic.errors import PydanticUserError
from pydantic.fields import FieldInfo
from pydantic.json_schema import PydanticJsonSchemaWarning

from roadworthy.context import RunContext
from roadworthy.errors import DeclarationError
from roadworthy.messages import JsonObject
from roadworthy.tools.arguments import HintReader
from roadworthy.tools.docstrings import describe
from roadworthy.tools.schemas import closed, everywhere, tidied


@dataclass(frozen=True, kw_only=True)
class Signature:
    """What a function's signature says."""

    name: str
    description: str
    parameters: JsonObject
    reader: HintReader
    takes_context: bool


def read_signature(function: Callable[..., Any], name: str | None) -> Signature:
    """Raises: DeclarationError: the function cannot be a tool as it stands."""
    if not (inspect.isfunction(function) or inspect.ismethod(function)):
        raise DeclarationError(f"@tool decorates a function, not {function!r}.")
    if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
        _fail(function, "it yields; a tool returns one value. Use run.progress(...) on the way.")
    docstring = inspect.getdoc(function)
    if not docstring or not docstring.strip():
        _fail(function, 'it has no docstring. Tell the model what it does: """Find an order."""')
    hints = _hints(function)
    parameters = list(inspect.signature(function).parameters.values())
    takes_context = bool(parameters) and _is_context(hints.get(parameters[0].name))
    parameters = parameters[takes_context:]
    for parameter in parameters:
        _check(function, parameter, hints)
    description, described = describe(docstring, [parameter.name for parameter in parameters])
    if not description:
        _fail(function, "its docstring describes parameters only; begin with what it does.")
    called = name or function.__name__
    model, keys = _model(function, parameters, hints, described)
    schema = _schema(function, model, hints)
    return Signature(
        name=called,
        description=description,
        parameters=schema,
        reader=HintReader(called, model, keys, schema),
        takes_context=takes_context,
    )


def _fail(function: Callable[..., Any], why: str) -> NoReturn:
    raise DeclarationError(f"Tool {function.__name__!r}: {why}")


def _hints(function: Callable[..., Any]) -> Mapping[str, Any]:
    """The hints, also of names that are local to where the tool is declared (tests, notebooks)."""
    try:
        return get_type_hints(function, include_extras=True)
    except NameError:
        local = _locals_of_caller()
    except TypeError as error:
        _fail(function, f"a type hint is no type: {error}.")
    try:
        return get_type_hints(function, localns=local, include_extras=True)
    except NameError as error:
        _fail(
            function,
            f"the type {error.name!r} cannot be found. Import it at run time, not only under "
            "TYPE_CHECKING.",
        )
    except TypeError as error:
        _fail(function, f"a type hint is no type: {error}.")


def _locals_of_caller() -> dict[str, Any]:
    frame = sys._getframe(1)
    ours = __name__.partition(".")[0]
    while frame.f_back is not None and _package(frame) == ours:
        frame = frame.f_back
    return dict(frame.f_locals)


def _package(frame: FrameType) -> str:
    return str(frame.f_globals.get("__name__", "")).partition(".")[0]


def _is_context(hint: object) -> bool:
    return hint is RunContext or get_origin(hint) is RunContext


def _check(
    function: Callable[..., Any], parameter: inspect.Parameter, hints: Mapping[str, Any]
) -> None:
    name = parameter.name
    if parameter.kind in {parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD}:
        _fail(function, f"{parameter} cannot be described to a model; name each parameter.")
    if parameter.kind is parameter.POSITIONAL_ONLY:
        _fail(function, f"parameter {name!r} is positional-only; arguments are given by name.")
    if name not in hints:
        _fail(function, f"parameter {name!r} has no type. Write e.g. {name}: str.")
    if _is_context(hints[name]):
        _fail(function, f"the RunContext must be its first parameter, not {name!r}.")
    if isinstance(parameter.default, FieldInfo):
        _fail(function, f"write {name}: Annotated[type, Field(...)], not {name} = Field(...).")


def _model(
    function: Callable[..., Any],
    parameters: list[inspect.Parameter],
    hints: Mapping[str, Any],
    described: Mapping[str, str],
) -> tuple[type[BaseModel], list[tuple[str, str]]]:
    keys = [(parameter.name, f"p{index}") for index, parameter in enumerate(parameters)]
    members: dict[str, Any] = {}
    for parameter, (name, field) in zip(parameters, keys, strict=True):
        hint = hints[name]
        text = None if _has_description(hint) else described.get(name)
        required = parameter.default is parameter.empty
        default = ... if required else parameter.default
        info = Field(default, alias=name, description=text) if text else Field(default, alias=name)
        members[field] = (hint, info)
    config = ConfigDict(extra="forbid", defer_build=False)
    try:
        return create_model(function.__name__, __config__=config, **members), keys
    except (PydanticUserError, TypeError) as error:
        _blame(function, hints, error)


def _has_description(hint: object) -> bool:
    extras = get_args(hint)[1:] if get_origin(hint) is Annotated else ()
    return any(isinstance(extra, FieldInfo) and extra.description for extra in extras)


def _schema(
    function: Callable[..., Any], model: type[BaseModel], hints: Mapping[str, Any]
) -> JsonObject:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", PydanticJsonSchemaWarning)  # defaults without JSON form
            raw = model.model_json_schema()
    except PydanticUserError as error:
        _blame(function, hints, error)
    for part in everywhere(raw):
        if part.get("additionalProperties") is True and part.get("properties"):
            _fail(
                function,
                f"{part.get('title', 'a model')} allows extra fields, so a call could not be "
                "checked. Use extra='forbid', and a field of type dict[str, ...] for open data.",
            )
        if part.get("writeOnly") is True:
            _fail(function, "a model must never handle secrets; read them from run.deps instead.")
    return {"type": "object"} | closed(tidied(raw))


def _blame(function: Callable[..., Any], hints: Mapping[str, Any], error: Exception) -> NoReturn:
    """Name the parameter whose type cannot be told to a model."""
    for name, hint in hints.items():
        if name == "return" or _is_context(hint):
            continue
        try:
            TypeAdapter(hint).json_schema()
        except (PydanticUserError, TypeError) as its:
            shown = getattr(hint, "__name__", str(hint))
            why = str(its).partition("\n")[0]
            raise DeclarationError(
                f"Tool {function.__name__!r}: parameter {name!r} of type {shown} cannot be "
                f"described to a model ({why}). Use JSON types, an Enum, a dataclass or a pydantic "
                "model, or take it from run.deps."
            ) from error
    _fail(function, f"its parameters cannot be described to a model: {error}")
