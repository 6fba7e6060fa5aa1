"""Guardrails: declared checks of what comes in and goes out, and the loop guard."""

from roadworthy.agent import Guardrail, Verdict
from roadworthy.guardrails.declare import guardrail
from roadworthy.guardrails.loops import LoopGuard, Notice
from roadworthy.guardrails.verdicts import Checked, check

__all__ = ["Checked", "Guardrail", "LoopGuard", "Notice", "Verdict", "check", "guardrail"]
