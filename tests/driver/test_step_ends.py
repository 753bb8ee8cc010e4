"""Where steps end among tokens, found piece by piece, against decoding every prefix."""

from hypothesis import given
from hypothesis import strategies as st

from adaptive_ttc.driver.step_ends import step_ends
from adaptive_ttc.types import split_steps


def decode(pieces):
    return "".join(pieces)


def begins(text):
    """Where the second and later steps begin."""
    place, found = 0, []
    for piece in text.split("\n\n"):
        if piece.strip():
            found.append(place + len(piece) - len(piece.lstrip()))
        place += len(piece) + 2
    return found[1:]


@given(st.lists(st.sampled_from(["a", "bc ", "\n", "\n\n", " ", "x\n\ny", "def."]), min_size=1, max_size=150))
def test_every_step_ends_before_the_token_that_begins_the_next(pieces):
    text = decode(pieces)
    steps = split_steps(text)
    ends = step_ends(text, pieces, decode)
    assert len(ends) == max(len(steps), 1)
    assert ends[-1] == len(pieces)
    expected = [max(n for n in range(len(pieces) + 1) if len(decode(pieces[:n])) <= place) for place in begins(text)]
    assert list(ends[:-1]) == expected


def test_a_decoder_that_swallows_the_first_space_of_a_piece_is_off_by_little():
    pieces = [" word"] * 100 + ["\n\n"] + [" next"] * 100
    text = decode(pieces)
    (end, _) = step_ends(text, pieces, lambda some: decode(some).removeprefix(" "))
    assert abs(end - 101) <= 1


def test_it_decodes_no_more_than_a_few_times_the_tokens():
    pieces = (["some"] * 40 + ["\n\n"]) * 50
    decoded = []
    step_ends(decode(pieces), pieces, lambda some: decoded.append(len(some)) or decode(some))
    assert sum(decoded) < 5 * len(pieces)
