"""Grading under attack: do hostile answers change how honest ones are judged, or hold them up?

    python bench/grading.py [--hostile 1000] [--families all] [--seconds 3] [--memory 2048] [--json FILE]

First, 350 pairs of honest answers are judged by a new grader, then ``hostile`` answers by another one, each against an
honest answer, and then the pairs by that one too. Second, problems of 8 answers each are graded side by side: 60 with
honest answers, then 60 others with 3 hostile ones beside them. Third, 256 answers of one problem are put into classes,
230 of them plain numbers, once of ten values and once all different. ``families`` are those of ``hostile_answers.py``,
separated by commas, or ``giants`` (numbers of megabytes, which fill a worker's memory) or ``all``; ``seconds`` is
``time_limit`` and ``memory`` is ``memory_mb`` of :class:`~adaptive_ttc.answers.GradingConfig`.

Figures: ``pairs``, ``as_before`` (judged alike before and after), ``equal_before``, ``equal_after``, ``hostile``,
``hostile_undecided``, ``timeouts``, ``crashes``, ``hostile_seconds``, ``pairs_seconds_before`` and ``_after`` (wall
time), ``held`` (honest problems), ``held_seconds_alone`` and ``held_seconds`` (until the last of them is graded, the
second with hostile ones beside them), ``held_median_alone`` and ``held_median`` (of one problem),
``bad_seconds`` (until the last hostile one is graded), ``classes_ms`` and ``classes_distinct_ms`` (processor time of
the 256 answers, median of nine sets of them, none read before), ``classes_requests`` (to workers, for all of them).
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from statistics import median

import anyio
from hostile_answers import FAMILIES, GIANTS, hostile_answers
from measuring import Figures, run_measurement

from adaptive_ttc.answers import Grader, GradingConfig

ANSWERS = 8
HONEST, HOSTILE = 60, 3


def honest_pairs(count: int) -> list[tuple[str, str]]:
    """Pairs of answers as models give them, of seven forms; every second one of a form agrees."""
    pairs = []
    for i in range(count):
        k, off = 2 + i // 14, (i // 7) % 2
        pairs.append(
            (
                (f"{2 * k}\\sqrt{{3}}", f"\\sqrt{{{12 * k * k + off}}}"),
                (f"\\sin({2 * k}x)", f"2\\sin({k}x)\\cos({k + off}x)"),
                (f"\\int_0^{{{k}}}x\\,dx", f"\\frac{{{k * k + off}}}{{2}}"),
                (f"\\{{1,{k},-{k}\\}}", f"\\{{-{k},1,{k + off}\\}}"),
                (f"\\left[{k},\\infty\\right)", f"[{k + off},\\infty)"),
                (f"y={k}x-1", f"y=-1+{k + off}x"),
                (f"\\begin{{pmatrix}}{k}\\\\1\\end{{pmatrix}}", f"\\begin{{bmatrix}}{k + off}\\\\1\\end{{bmatrix}}"),
            )[i % 7]
        )
    return pairs


def judge(grader: Grader, pairs: Sequence[tuple[str, str]]) -> tuple[list[bool], float]:
    """The grader's verdicts, and the wall time that they took."""
    began = time.monotonic()
    verdicts = [grader.equal_sync(gold, answer) for gold, answer in pairs]
    return verdicts, time.monotonic() - began


async def grade_side_by_side(grader: Grader, problems: Sequence[Sequence[str]]) -> list[float]:
    """When each problem was graded, in seconds from the start, all graded at once."""
    began = time.monotonic()
    done = [0.0] * len(problems)

    async def one(index: int) -> None:
        await grader.for_problem().classes(problems[index])
        done[index] = time.monotonic() - began

    async with anyio.create_task_group() as tasks:
        for index in range(len(problems)):
            tasks.start_soon(one, index)
    return done


def problems_of(pairs: Sequence[tuple[str, str]]) -> list[list[str]]:
    """Problems of four pairs of answers each."""
    answers = [answer for pair in pairs for answer in pair]
    return [answers[i : i + ANSWERS] for i in range(0, len(answers), ANSWERS)]


FORMS = (
    r"\frac{K}{7}",
    r"\sqrt{K}",
    "x=K",
    r"K\text{ cm}",
    r"K\%",
    "K.142857",
    r"K\pi",
    r"\text{no K}",
    "(1,K)",
    r"\{K,2\}",
    r"[K,\infty)",
    "x<K",
    "K 1/2",
)


def many_answers(index: int, distinct: int) -> list[str]:
    """256 answers of one problem, of which 230 are plain numbers of so many values; the ``index``-th set of them."""
    base = 1000 * (index + 1)
    numbers = [str(base + i % distinct) for i in range(230)]
    return numbers + [form.replace("K", str(base + i)) for i in (0, 1) for form in FORMS]


def time_classes() -> dict[str, float]:
    """Milliseconds of processor time that classes of 256 answers take, and how often a worker was asked."""
    found: dict[str, float] = {}
    with Grader() as grader:
        for name, distinct in (("classes_ms", 10), ("classes_distinct_ms", 230)):
            taken = []
            for index in range(9):
                answers = many_answers(index + distinct, distinct)
                began = time.process_time()
                grader.classes_sync(answers)
                taken.append(1000 * (time.process_time() - began))
            found[name] = median(taken)
        found["classes_requests"] = grader.statistics().requests
    return found


async def measure(hostile: int, families: str, seconds: float, memory: int, pairs: int, problems: int) -> Figures:
    names = {"all": tuple(FAMILIES), "giants": GIANTS}.get(families) or tuple(families.split(","))
    attack = hostile_answers(hostile, names)
    honest = honest_pairs(pairs)
    config = GradingConfig(time_limit=seconds, memory_mb=memory)
    with Grader(config) as grader:
        before, before_seconds = judge(grader, honest)
    with Grader(config) as grader:
        _, attack_seconds = judge(grader, [(r"1+\sqrt{2}", answer) for answer in attack])
        statistics = grader.statistics()
        after, after_seconds = judge(grader, honest)
    many = problems_of(honest_pairs(2 * problems * ANSWERS // 2))
    with Grader(config) as grader:
        grader.equal_sync("x", "x+1")  # a worker is ready
        alone = await grade_side_by_side(grader, many[:problems])
    bad = [attack[i * ANSWERS : (i + 1) * ANSWERS] for i in range(HOSTILE)]
    with Grader(config) as grader:
        grader.equal_sync("x", "x+1")
        beside = await grade_side_by_side(grader, [*bad, *many[:problems]])
    return {
        "pairs": len(honest),
        "as_before": sum(a == b for a, b in zip(before, after, strict=True)),
        "equal_before": sum(before),
        "equal_after": sum(after),
        "hostile": len(attack),
        "hostile_undecided": statistics.undecided,
        "timeouts": statistics.timeouts,
        "crashes": statistics.crashes,
        "hostile_seconds": attack_seconds,
        "pairs_seconds_before": before_seconds,
        "pairs_seconds_after": after_seconds,
        "held": problems,
        "held_seconds_alone": max(alone),
        "held_seconds": max(beside[HOSTILE:]),
        "held_median_alone": median(alone),
        "held_median": median(beside[HOSTILE:]),
        "bad_seconds": max(beside[:HOSTILE]),
        **time_classes(),
    }


if __name__ == "__main__":
    run_measurement(
        "grading",
        __doc__,
        measure,
        hostile=(1000, "hostile answers"),
        families=("all", "families of hostile answers, or 'giants' or 'all'"),
        seconds=(3.0, "time_limit"),
        memory=(2048, "memory_mb"),
        pairs=(350, "pairs of honest answers"),
        problems=(HONEST, "honest problems that are graded side by side"),
    )
