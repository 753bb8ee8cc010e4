"""The first step of a whole solution is read off its tokens as calibration, which draws it by itself, has it."""

import pytest

from adaptive_ttc.estimate.features import first_step_length
from adaptive_ttc.types import Prefix


def decode(ids):
    return "".join(map(chr, ids))


@pytest.mark.parametrize(
    ("text", "first"),
    [
        ("one\n\ntwo\n\nthree", "one\n\n"),
        ("only one step", "only one step"),
        ("ends with it\n\n", "ends with it\n\n"),
        ("a line\nanother\n\nnext", "a line\nanother\n\n"),
        ("\n\nbegins blank\n\nnext", "\n\n"),
        ("", ""),
    ],
)
def test_its_length_is_up_to_and_with_the_first_blank_line(text, first):
    ids = tuple(map(ord, text))
    assert first_step_length(Prefix(token_ids=ids, text=text), decode) == len(first)
