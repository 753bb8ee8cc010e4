import pytest
from hypothesis import given
from hypothesis import strategies as st

from adaptive_ttc.errors import AdaptiveTTCError, ConfigError
from adaptive_ttc.types import Message, Prefix, Problem, Usage, bin_names, split_steps

FIELDS = list(Usage.__dataclass_fields__)


def test_a_problem_is_named_by_its_text_alone():
    problem = Problem.of("1 + 1?")
    assert problem.messages == (Message("user", "1 + 1?"),)
    assert problem == Problem.of([{"role": "user", "content": "1 + 1?"}])
    assert problem.id != Problem.of("1 + 2?").id
    assert problem.id != Problem.of([{"role": "system", "content": ""}, {"role": "user", "content": "1 + 1?"}]).id
    assert Problem.of(problem) is problem
    assert Problem.of(problem, id="q").id == "q"


def test_the_question_is_the_last_user_turn():
    turns = [("system", "Be brief."), ("user", "Hello"), ("assistant", "Hello."), ("user", "1 + 1?")]
    problem = Problem.of([{"role": role, "content": content} for role, content in turns])
    assert problem.question == "1 + 1?"
    assert len(problem.messages) == 4


@pytest.mark.parametrize(
    ("problem", "words"),
    [
        ("", "the problem is empty"),
        (" \n", "the problem is empty"),
        ([], "the problem is empty"),
        ([{"role": "assistant", "content": "2"}], "end with a user turn"),
        ([{"role": "tool", "content": "2"}], "role 'tool'"),
        ([{"role": "user"}], "a chat message is"),
        ([{"role": "user", "content": "2", "answer": "4"}], "a chat message is"),
    ],
)
def test_what_is_no_problem_is_refused(problem, words):
    with pytest.raises(ConfigError, match=words) as raised:
        Problem.of(problem)
    assert isinstance(raised.value, ValueError)
    assert isinstance(raised.value, AdaptiveTTCError)


@given(st.lists(st.sampled_from(["a", "b\nc", "", " ", "\n"]), max_size=8))
def test_no_step_is_empty_and_no_text_is_lost(pieces):
    """Trap 3."""
    steps = split_steps("\n\n".join(pieces))
    assert all(step == step.strip() != "" for step in steps)
    assert "".join("".join(steps).split()) == "".join("".join(pieces).split())


def test_only_the_model_itself_finishes_a_solution():
    """Trap 4."""
    assert [finish for finish in ("eos", "stop", "length", "budget", "abort") if Prefix(finish=finish).finished] == [
        "eos"
    ]


@given(
    st.lists(st.integers(0, 9), min_size=len(FIELDS), max_size=len(FIELDS)),
    st.lists(st.integers(0, 9), min_size=len(FIELDS), max_size=len(FIELDS)),
)
def test_usage_adds_field_by_field(one, other):
    first, second = Usage(**dict(zip(FIELDS, one, strict=True))), Usage(**dict(zip(FIELDS, other, strict=True)))
    both = first + second
    assert [getattr(both, name) for name in FIELDS] == [a + b for a, b in zip(one, other, strict=True)]


def test_five_difficulty_bins_have_names_and_others_numbers():
    assert bin_names(5) == ("easiest", "easy", "middle", "hard", "hardest")
    assert bin_names(2) == ("bin 0", "bin 1")
