"""People: the queue of escalations, who owns a conversation, and what is said in it.

Rules of when are in `roadworthy.triggers`; what operators do is `rt.inbox` (`roadworthy.people`).
"""

from roadworthy.escalation.channels import Email, Slack, Webhook
from roadworthy.escalation.hours import Hours
from roadworthy.escalation.policy import Inbox, QueuePolicy
from roadworthy.escalation.views import Escalation, LogEntry, Said
from roadworthy.triggers import TOPICS, EscalationRules, Judged, RunState

__all__ = [
    "TOPICS",
    "Email",
    "Escalation",
    "EscalationRules",
    "Hours",
    "Inbox",
    "Judged",
    "LogEntry",
    "QueuePolicy",
    "RunState",
    "Said",
    "Slack",
    "Webhook",
]
