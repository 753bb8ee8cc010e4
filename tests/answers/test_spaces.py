"""Answer spaces: what each reads off a solution, its one spelling, what is equal, and that no text holds them up."""

import time

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from adaptive_ttc.answers import AnswerSpace, Grader, extract_answer, parse_space
from adaptive_ttc.answers.spaces.base import answer_in
from adaptive_ttc.answers.spaces.registry import SPELLINGS, space_of
from adaptive_ttc.errors import ConfigError

WITH_SETTINGS = "math:the_answer_is,hashes,last_number"
EVERY = ("math", WITH_SETTINGS, "number", "choice", r"regex:= (?P<answer>\w+)", "json", "json:a.b[0]", "text", "code")


def read(space, text, finish="eos"):
    return answer_in(parse_space(space), text, finish)


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("(B)", "B"),
        ("B.", "B"),
        ("**B**", "B"),
        ("Answer: b", "B"),
        ("Answer: (b) 12", "B"),
        (r"So it is \boxed{\text{B}}.", "B"),
        (r"\boxed{\textbf{(B)}\ 12}", "B"),
        (r"\boxed{B) 12}", "B"),
        ("We take option B", "B"),
        ("So it is **B**.\n", "B"),
        ("So **(B)**", "B"),
        ("The answer must be B.", "B"),
        ("The answer is C. The answer is surely right", "C"),
        ("Therefore, choice (C).", "C"),
        ("the answer is (C) 17", "C"),
        ("The correct answer is Option E.", "E"),
        ("the correct option is: C", "C"),
        ("**Answer:** D", "D"),
        ("Final answer: **(D)**\n", "D"),
        ("Answer:\n\nJ", "J"),
        ("the answer is $\\text{(D)}$.", "D"),
        ("The answer is A because it rains.", "A"),
        ("(A) is too small.\n\nD is correct", "D"),
        ("First I thought the answer is A.\n\nBut the answer is B.", "B"),
        ("B) 17", "B"),
        ("The answer is a good one.", None),
        ("Answer: I think that it is hard", None),
        ("We compare (A) and (B)", None),
        ("A dog barks", None),
        ("I am lost", None),
        ("The answer is K", None),
    ],
)
def test_choices_in_all_their_spellings(text, answer):
    assert read("choice", text) == answer


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("5 + 5 = 10\n#### 1,234", "1234"),
        ("#### 12\nShe has 7 left.", "12"),
        ("The answer is $18 per day.", "18"),
        ("The answer is **1,000,000**.", "1000000"),
        ("The answer is 10 + 5 = 15.", "15"),
        (r"\boxed{72\text{ clips}}", "72"),
        (r"\boxed{3\frac{1}{2}}", "3.5"),
        (r"\boxed{-\frac{1}{3}}", "-1/3"),
        ("she has 5 apples and 3.50 left", "3.5"),
        ("so \\frac{3}{4}", "0.75"),
        ("answer is 033.", "33"),
        ("To find the answer we compute: 3 * 4 = 12.\nSo it is 12 + 5 = 17 in all", "17"),
        ("The answer is 12.\nIs the answer correct? We check: 5 + 7 = 12, and not 13", "12"),
        ("The answer is 12. The answer is easy to check.", "12"),
        ("The answer to the problem should be 7, not 9", "7"),
        ("**Answer**: 5", "5"),
        ("27.0", "27"),
        ("x = -3", "-3"),
        ("x = \u22123", "-3"),
        ("10 - 5", "5"),
        ("1e5", "100000"),
        ("3\u00bd and no more", "3.5"),
        ("half of it is \uff12\uff17", None),
        ("\\boxed{\uff12\uff17}", "27"),
        (r"The answer is 5. \boxed{unknown}", "5"),
        ("I do not know.", None),
    ],
)
def test_numbers(text, answer):
    assert read("number", text) == answer


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("The final answer is $\\frac12$. I hope it is correct.", r"\frac{1}{2}"),
        ("Answer: x^2+1", "x^2+1"),
        ("so\n#### 5", "5"),
        ("so 4 it is", "4"),
        (r"\boxed{x+1} The answer is 5", "x+1"),
        ("nothing", None),
    ],
)
def test_mathematics_reads_the_box_first_and_then_what_its_settings_name(text, answer):
    assert read(WITH_SETTINGS, text) == answer
    assert read("math", text) == (answer if "boxed" in text else None)


def test_other_spaces():
    assert read("json:a.b[0]", 'first {"a": {"b": [1]}} then {"a": {"b": [27.0, 2]}}, not {"c": 3}') == "27"
    assert read("json:a.b[0]", '```json\n{"a": {"b": ["Yes,  it is"]}}\n```') == "Yes, it is"
    assert read("json:a.b[0]", '{"a": [1]} [') is None
    assert read("json", 'so {"b": 1.50, "a": [true, null]}') == '{"a":[true,null],"b":1.5}'
    assert read("text", "The answer is The  Eiffel Tower.") == "the eiffel tower"
    assert read("text", 'Hm.\n"**Paris**"\n') == read("text", r"\boxed{paris.}") == "paris"
    assert read(r"regex:Result = (?P<answer>\d+)", "Result = 5, no: Result = 6.") == "6"
    assert read(r"regex:(\d+) apples", "5 apples or 7 apples") == "7"
    assert read(r"regex:\d+ apples", "5 apples") == "5 apples"


@pytest.mark.parametrize("finish", ["length", "budget", "abort", None])
def test_what_is_guessed_from_the_end_is_not_read_off_a_solution_that_was_cut_off(finish):
    for space, text in (
        ("number", "She has 12 and then 7"),
        (WITH_SETTINGS, "She has 12 and then 7"),
        ("choice", "So (B)"),
        ("text", "Now let"),
        ("json", '{"a": [1, 2], '),
    ):
        assert read(space, text) is not None
        assert read(space, text, finish) is None
    for space in ("math", "number", "choice", "text"):
        assert read(space, r"\boxed{7}" if space != "choice" else r"\boxed{C}", finish) is not None
    assert read("number", "The answer is 7. Let me check: 4", finish) == "7"


@pytest.mark.parametrize("name", EVERY)
def test_a_name_and_its_space_are_one(name):
    assert parse_space(name).name == name
    assert parse_space(name).form
    assert space_of(parse_space(name)) is parse_space(name)


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("maths", "is no answer space"),
        ("", "is no answer space"),
        ("number:2", "takes no settings"),
        ("regex", "needs settings"),
        ("regex:(", "no regular expression"),
        (r"regex:(\d) (\d)", "name the group"),
        ("json:a..b", "a path is keys and indices"),
        ("json:a[x]", "a path is keys and indices"),
        ("math:last_word", "unknown last_word; known: the_answer_is, hashes, last_number"),
        (7, "or an AnswerSpace"),
    ],
)
def test_what_is_no_space_is_refused_with_what_there_is(name, told):
    with pytest.raises(ConfigError, match=told.replace("(", r"\(")):
        space_of(name)


ALPHABET = st.sampled_from(
    ["\\boxed{", "}", "{", "[", "]", '"a"', ":", ",", "answer is ", "Answer:", "#### ", "(B)", "B", "a", "7", "1,000",
     "/", ".", "\n", "=", " ", "**", "\\frac{1}{2}", "\u00bd", "\ud800", "\x00", "-", "e", "$", "\\text{", "option ",
     "\n```\n"]
)  # fmt: skip


@pytest.mark.parametrize("name", EVERY)
@given(text=st.lists(ALPHABET, max_size=14).map("".join))
@example(text='["\\"x\\""]')
def test_every_answer_is_printable_and_in_its_one_spelling(name, text):
    space = parse_space(name)
    answer = answer_in(space, text)
    if answer is not None:
        assert answer.strip()
        assert answer.replace("\n", "").isprintable()
        assert space.canonical(answer) == answer
        span = space.span(text)
        assert span is None or text[slice(*span)] == space.extract(text)


@pytest.mark.parametrize("name", EVERY)
def test_no_text_holds_up_a_reader(name):
    units = ("answer is ", "answer:", "#### ", "(", "**", "\n", "1,", "1", "{", '{"', "[", "[[1],", '{"a":', "(A", "- ",
             "option ", "$", "\\text{", "\\boxed{", " ", "\u00bd", "A is ")  # fmt: skip
    for unit in units:
        began = time.process_time()
        read(name, unit * (100_000 // len(unit)))
        assert time.process_time() - began < 2, unit


@pytest.mark.parametrize(
    ("name", "answers", "classes"),
    [
        ("number", ["1,000", "1000.0", None, "7", "$7", "1/2", "0.5"], ["1000", "1000", None, "7", "7", "0.5", "0.5"]),
        ("choice", ["(b)", "B", "C) 4", "nothing"], ["B", "B", "C", None]),
        ("text", ["Paris.", "paris", "Rome"], ["paris", "paris", "rome"]),
        ("json", ['{"a": 1, "b": 2.0}', '{"b":2,"a":1}', "[1]"], ['{"a":1,"b":2}', '{"a":1,"b":2}', "[1]"]),
        (WITH_SETTINGS, ["0.5", r"\frac12", "7"], ["0.5", "0.5", "7"]),
    ],
)
async def test_a_grader_puts_answers_into_the_classes_of_its_space(name, answers, classes):
    async with Grader(space=parse_space(name)) as grader:
        assert list(await grader.classes(answers)) == classes
        assert list(grader.classes_sync(answers)) == classes
        assert await grader.equal(answers[0], answers[1])
        assert not await grader.equal(answers[0], classes[-1])
        assert not await grader.equal(answers[0], None)
        assert grader.statistics().starts == 0, "no worker is needed"


class Parity(AnswerSpace):
    """Whole numbers, equal where both are even or odd."""

    name = "parity"
    form = "a whole number"

    def extract(self, text):
        return text.rpartition(" ")[2]

    def equal(self, gold, answer):
        return int(gold) % 2 == int(answer) % 2


async def test_a_space_of_ones_own():
    async with Grader(space=Parity()) as grader:
        assert grader.read("it is 12") == "12"
        assert await grader.classes(["12", "4", "7"]) == ("4", "4", "7")
        assert await grader.equal("12", "8")
    with pytest.raises(ConfigError, match="has no name"):
        space_of(AnswerSpace())


def test_a_space_that_fails_is_told_by_its_name():
    class Broken(Parity):
        def extract(self, text):
            return text.no_such_thing

    with pytest.raises(ConfigError, match=r"answer space 'parity' failed.*AttributeError"):
        answer_in(Broken(), "x")


def test_mathematics_is_what_it_was():
    for text in (r"so \boxed{1{,}000}", r"\boxed{\dfrac12}", "none", r"\boxed{}", r"\boxed{ x = 5. }"):
        assert read("math", text) == extract_answer(text)
        assert read("math", text, "length") == extract_answer(text)


def test_the_spellings_are_those_that_are_parsed():
    assert {name.partition(":")[0] for name in SPELLINGS} == {name.partition(":")[0] for name in EVERY}
    for name in SPELLINGS:
        assert parse_space(name).name == name
