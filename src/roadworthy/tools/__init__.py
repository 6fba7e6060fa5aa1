"""Tools: declared by `@tool`, checked by the `Registry`, their results rendered for the model.

Invariant: only declared tools, with arguments that fit, ever execute.
"""

from roadworthy.agent import Alternative, ArgumentReader, Tool, Toolset
from roadworthy.limits import Breaker
from roadworthy.rules import (
    Rule,
    approve_when,
    at_most,
    bounds,
    only_after_approval,
    over,
    requires,
)
from roadworthy.standins import AskPerson, Default, LastGood
from roadworthy.tools.arguments import MAX_BYTES, MAX_DEPTH, HintReader, SchemaReader
from roadworthy.tools.declare import RESERVED, tool, tool_from_schema
from roadworthy.tools.registry import Accepted, ReasonCode, Refused, Registry, argument_hash
from roadworthy.tools.results import MAX_TEXT, Rendered, render
from roadworthy.tools.toolset import toolset
from roadworthy.undo import Undo

__all__ = [
    "MAX_BYTES",
    "MAX_DEPTH",
    "MAX_TEXT",
    "RESERVED",
    "Accepted",
    "Alternative",
    "ArgumentReader",
    "AskPerson",
    "Breaker",
    "Default",
    "HintReader",
    "LastGood",
    "ReasonCode",
    "Refused",
    "Registry",
    "Rendered",
    "Rule",
    "SchemaReader",
    "Tool",
    "Toolset",
    "Undo",
    "approve_when",
    "argument_hash",
    "at_most",
    "bounds",
    "only_after_approval",
    "over",
    "render",
    "requires",
    "tool",
    "tool_from_schema",
    "toolset",
]
