"""A stream's lines as documents: each line is one, however it comes."""

import io
import time

from hypothesis import given, settings
from hypothesis import strategies as st

from dq_lightning.runtime.documents import LineFormat, windows


def test_a_mark_of_byte_order_is_no_text():
    assert LineFormat().read(1, b"\xef\xbb\xbfword\r\n").text == "word"
    assert LineFormat().read(2, b"two words \n").text == "two words "


def test_reading_ahead_is_bounded():
    class Endless(io.RawIOBase):
        taken = 0

        def readline(self, size=-1):
            self.taken += 1
            return b"line\n"

    stream = Endless()
    arriving = windows(stream, LineFormat(), 5)
    for _ in range(3):
        assert len(next(arriving)) == 5
    time.sleep(0.1)
    assert stream.taken <= 3 * 5 + 5 + 1  # what was given, what waits, what the thread holds


@settings(max_examples=60, deadline=None)
@given(st.lists(st.binary(max_size=12).map(lambda b: b.replace(b"\n", b""))), st.booleans(),
       st.integers(1, 5))  # fmt: skip
def test_every_line_is_one_document(rows, jsonl, size):
    content = b"".join(row + b"\n" for row in rows)
    form = LineFormat(jsonl)
    found = [document for window in windows(io.BytesIO(content), form, size) for document in window]
    assert [document.number for document in found] == list(range(1, len(rows) + 1))
    assert sum(document.size for document in found) == len(content)
    for document in found:
        answer = form.write(document, ["two\nlines"] if document.text is not None else [])
        assert answer.count("\n") == 1
        assert document.text is None or document.error is None
