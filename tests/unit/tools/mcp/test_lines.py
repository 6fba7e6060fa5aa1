"""Messages out of bytes, however they are cut, and none over the bound."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from roadworthy.tools.mcp.lines import Lines, TooLong

line = st.binary(max_size=40).map(lambda data: data.replace(b"\n", b""))


@given(st.lists(line), st.lists(st.integers(1, 30)))
def test_lines_come_out_as_they_were_however_they_are_cut(
    lines: list[bytes], cuts: list[int]
) -> None:
    stream, reader = b"".join(each + b"\n" for each in lines), Lines(25)
    found: list[bytes | TooLong] = []
    for size in [*cuts, len(stream) + 1]:
        found += reader.feed(stream[:size])
        stream = stream[size:]
    wanted = [each if len(each) <= 25 else TooLong(len(each), None) for each in lines if each]
    assert found == wanted


def test_the_id_of_what_is_too_long_is_found_at_either_end() -> None:
    body = b"x" * 5_000
    for message, wanted in (
        (b'{"jsonrpc":"2.0","id":17,"result":"' + body + b'"}', 17),
        (b'{"result":"' + body + b'","jsonrpc":"2.0","id":"a-1"}', "a-1"),
        (b'{"result":"' + body + b'"}', None),
    ):
        reader = Lines(1_000)
        found = [
            each
            for part in (message[:3_000], message[3_000:] + b"\n")
            for each in reader.feed(part)
        ]
        assert found == [TooLong(len(message), wanted)]
