"""What is printed: money, durations, and text that cannot play with the terminal."""

from __future__ import annotations

import pytest

from roadworthy.cli.binding import is_loopback
from roadworthy.cli.screen import EXIT, Screen, clean, span, usd
from roadworthy.events import Delivered, TextDelta, TextReplaced, ToolProgress
from roadworthy.result import ENDS


@pytest.mark.parametrize(
    ("nanos", "shown"),
    [(0, "$0"), (1, "$1e-09"), (42_100_000, "$0.0421"), (1_500_000_000, "$1.50")],
)
def test_money_has_the_digits_that_matter(nanos: int, shown: str) -> None:
    assert usd(nanos) == shown


def test_a_duration_is_short() -> None:
    assert (span(94_000), span(6_400_000)) == ("94 ms", "6.40 s")


def test_text_cannot_control_the_terminal() -> None:
    evil = "a\x1b]0;owned\x07b\x1b[2Jc\rd\u202ee\ud800\tf\ng"
    assert clean(evil) == "a]0;ownedb[2Jcde?\tf\ng"


def test_every_status_has_an_exit_code() -> None:
    assert {EXIT[end] for end in ENDS} == {0, 1, 4}
    assert EXIT["waiting"] == EXIT["escalated"] == 3


def test_an_answer_is_shown_once_however_it_came(capsys: pytest.CaptureFixture[str]) -> None:
    screen = Screen()

    def delta(text: str, offset: int, key: str = "turn/1/model") -> None:
        screen.show(TextDelta(run_id="r", key=key, text=text, offset=offset))

    delta("One ", 0)
    delta("moment.", 4)
    screen.show(ToolProgress(run_id="r", key="k", tool="look", text="looking\x1b[2J"))
    delta("Bad", 0, "turn/2/model")
    screen.show(TextReplaced(run_id="r", key="turn/2/model", text="Good."))
    screen.show(Delivered(run_id="r", seq=3, text="Good."))
    screen.show(Delivered(run_id="r", seq=4, text="More."))
    out, err = capsys.readouterr()
    assert out == "One moment.\nBad\nGood.\nMore.\n"
    assert "look: looking[2J" in err
    assert screen.after == {"r": 4}


@pytest.mark.parametrize(
    ("host", "local"),
    [("127.0.0.1", True), ("::1", True), ("localhost", True), ("0.0.0.0", False), ("desk", False)],  # noqa: S104
)
def test_only_loopback_needs_no_warning(host: str, local: bool) -> None:
    assert is_loopback(host) is local
