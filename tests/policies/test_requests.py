import pytest

from adaptive_ttc.policies.fake.writers import EOS, decode_tokens, encode_text
from adaptive_ttc.policies.requests import StopRule, TokenTexts

WORDS = ["a", "b", "\n", "\n\n", "end\n", "\n\nStep", "So", " ", "\\boxed{", "}", "é"]


def decode_words(token_ids):
    return "".join(WORDS[token] for token in token_ids)


def first_met(rule, tokens, context=""):
    """How many tokens it takes."""
    return next((n for n in range(1, len(tokens) + 1) if rule.met(context, tokens[:n])), None)


def words(*texts):
    return [WORDS.index(text) for text in texts]


@pytest.fixture
def texts():
    return TokenTexts(decode_words, 0)


def test_within_a_token_at_its_end_and_in_its_middle(texts):
    rule = StopRule(("\n\n",), texts)
    assert first_met(rule, words("a", "\n\n", "b")) == 2
    assert first_met(rule, words("a", "\n\nStep", "b")) == 2
    assert first_met(rule, words("a", "\n", "b", "\n")) is None


def test_across_tokens(texts):
    rule = StopRule(("\n\n",), texts)
    assert first_met(rule, words("a", "\n", "\n")) == 3
    assert first_met(rule, words("end\n", "\n\nStep")) == 2


def test_across_the_seam(texts):
    rule = StopRule(("\n\n",), texts)
    assert first_met(rule, words("\n", "b"), context="x\n") == 1
    assert first_met(rule, words("\n", "b"), context="x") is None
    assert first_met(rule, words("b", "\n"), context="x\n") is None


def test_what_ended_in_the_context_is_no_match(texts):
    rule = StopRule(("}", "\n\n"), texts)
    assert first_met(rule, words("a", "b"), context="}\n\n") is None
    assert first_met(rule, words("a", " "), context="\n\n") is None


def test_any_of_several_strings_of_any_length(texts):
    rule = StopRule(("never", "So a", "\\boxed{b}"), texts)
    assert first_met(rule, words("b", "So", " ", "a", "b")) == 4
    assert first_met(rule, words("\\boxed{", "b", "}")) == 3
    assert first_met(rule, words("\\boxed{", "a", "}")) is None


def test_no_stop_strings_never_end_a_sample(texts):
    assert first_met(StopRule((), texts), words("\n\n", "\n\n")) is None


def test_a_character_of_several_tokens():
    rule = StopRule(("é!", "→"), TokenTexts(decode_tokens, ord("a")))
    assert first_met(rule, list(encode_text("ab→c"))) == 5
    assert first_met(rule, list(encode_text("bé!"))) == 4
    assert first_met(rule, list(encode_text("bé?"))) is None


def test_a_character_split_by_the_seam_does_not_hide_what_follows():
    rule = StopRule(("\n\n",), TokenTexts(decode_tokens, ord("a")))
    half = list(encode_text("é"))[1:]
    assert first_met(rule, [*half, 10, 10], context="") == 3


def test_control_tokens_have_no_text():
    texts = TokenTexts(decode_tokens, ord("a"))
    assert texts[EOS] == ""
    assert texts[ord("x")] == "x"


def test_a_decoder_that_strips_the_first_blank():
    texts = TokenTexts(lambda ids: decode_words(ids).lstrip(" "), 0)
    assert texts[WORDS.index(" ")] == " "
    assert first_met(StopRule((" ",), texts), words("a", " ")) == 2


def test_long_samples_are_seen_through_their_tail(texts):
    rule = StopRule(("\n\n",), texts)
    tokens = words(*["a", "b"] * 200, "\n", "\n")
    assert first_met(rule, tokens) == len(tokens)
