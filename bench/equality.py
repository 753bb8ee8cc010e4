"""Which answers of mathematics are equal: tables of pairs, right answers against each other, recorded samples.

    python bench/equality.py [--gold MATH500] [--traces FILE...] [--keep FILE] [--before FILE] [--json FILE]

Judged are the pairs of ``tests/answers/equal.txt`` and ``unequal.txt`` in both orders, all pairs of different right
answers of a data set (those that are found equal are printed), and all recorded answers against their right ones but
for pairs of whole numbers. ``--keep`` writes the verdicts on the latter, and ``--before`` reads those that another
version of the code kept: what changed is printed, with how many samples it stands for and how many of them were
recorded as right.

Figures: ``equal`` and ``unequal`` pairs, ``equal_wrong`` and ``unequal_wrong`` (in one order or both), ``gold_texts``,
``gold_pairs``, ``gold_equal``, ``answers`` and ``pairs`` (recorded ones that are not whole numbers), ``agree`` (answers
whose verdict is the recorded one), ``changed``, ``gained`` and ``lost`` (pairs that are judged otherwise than before,
and answers that went from wrong to right and from right to wrong), ``requests`` (to workers).
"""

from __future__ import annotations

import argparse
import gzip
import json
import re
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import combinations
from pathlib import Path

from measuring import parser_of, report

from adaptive_ttc.answers import Grader, canonical
from adaptive_ttc.answers.extraction import answer_span
from adaptive_ttc.cli import exit_code

Pair = tuple[str, str]
TABLES = Path(__file__).resolve().parent.parent / "tests" / "answers"
_WHOLE = re.compile(r"-?[0-9]+")


def table(name: str) -> list[Pair]:
    """Pairs of a table, without its headings."""
    lines = (TABLES / name).read_text(encoding="utf-8").splitlines()[1:]
    split = (line.split(" | ", 1) for line in lines if line and not line.startswith("# "))
    return [(first, second) for first, second in split]


def wrong_in(grader: Grader, name: str, wanted: bool) -> tuple[int, int]:
    """Number of pairs of a table, and of those that are judged otherwise in one order or both."""
    pairs = table(name)
    wrong = [pair for pair in pairs if {grader.equal_sync(*pair), grader.equal_sync(*reversed(pair))} != {wanted}]
    return len(pairs), len(wrong)


def gold_figures(grader: Grader, file: Path) -> dict[str, int]:
    """How many pairs of different right answers are equal; prints them."""
    with file.open(encoding="utf-8") as lines:
        texts = sorted({canonical(json.loads(line)["answer"]) for line in lines})
    found = [pair for pair in combinations(texts, 2) if grader.equal_sync(*pair)]
    for first, second in found:
        print(f"equal: {first}   {second}")
    return {"gold_texts": len(texts), "gold_pairs": len(texts) * (len(texts) - 1) // 2, "gold_equal": len(found)}


def recorded(files: Sequence[Path]) -> dict[Pair, Counter[bool]]:
    """How often each pair of a right and a given answer was recorded as right and as wrong."""
    found: dict[Pair, Counter[bool]] = {}
    for file in files:
        for gold, answer, correct in _samples(file):
            if not (_WHOLE.fullmatch(gold) and _WHOLE.fullmatch(answer)):
                found.setdefault((gold, answer), Counter())[correct] += 1
    return found


def _samples(file: Path) -> Iterator[tuple[str, str, bool]]:
    with gzip.open(file, "rt", encoding="utf-8") if file.suffix == ".gz" else file.open(encoding="utf-8") as lines:
        for line in lines:
            problem = json.loads(line)
            for sample in problem["samples"]:
                text = sample.get("text") or ""
                span = answer_span(text)
                given = {sample.get("answer"), None if span is None else text[slice(*span)]} - {None}
                yield from ((str(problem["gold"]), str(answer), bool(sample["correct"])) for answer in given)


def trace_figures(grader: Grader, options: argparse.Namespace) -> dict[str, int]:
    """Verdicts on recorded answers, against the recorded ones and those of another version."""
    found = recorded(options.traces)
    verdicts = {pair: grader.equal_sync(*pair) for pair in found}
    figures = {
        "answers": sum(counts.total() for counts in found.values()),
        "pairs": len(found),
        "agree": sum(counts[verdicts[pair]] for pair, counts in found.items()),
    }
    if options.keep:
        rows = [[*pair, verdict] for pair, verdict in verdicts.items()]
        options.keep.write_text(json.dumps(rows, ensure_ascii=False), encoding="utf-8")
    if options.before:
        before = {(gold, answer): verdict for gold, answer, verdict in json.loads(options.before.read_text("utf-8"))}
        changed = [pair for pair, verdict in verdicts.items() if before.get(pair, verdict) is not verdict]
        for pair in changed:
            counts = found[pair]
            print(f"{'gained' if verdicts[pair] else 'lost'}: {pair[0]}   {pair[1]}   {counts.total()}, {counts[True]}")
        total = Counter({verdicts[pair]: 0 for pair in changed})
        for pair in changed:
            total[verdicts[pair]] += found[pair].total()
        figures |= {"changed": len(changed), "gained": total[True], "lost": total[False]}
    return figures


def measure(options: argparse.Namespace) -> dict[str, int]:
    """All figures that the options ask for."""
    with Grader() as grader:
        equal, equal_wrong = wrong_in(grader, "equal.txt", True)
        unequal, unequal_wrong = wrong_in(grader, "unequal.txt", False)
        figures = {
            "equal": equal,
            "equal_wrong": equal_wrong,
            "unequal": unequal,
            "unequal_wrong": unequal_wrong,
        }
        if options.gold:
            figures |= gold_figures(grader, options.gold)
        if options.traces:
            figures |= trace_figures(grader, options)
        return {**figures, "requests": grader.statistics().requests}


def main() -> int:
    parser = parser_of(__doc__)
    parser.add_argument("--gold", type=Path, metavar="FILE", help="a data set in JSON Lines with a column 'answer'")
    parser.add_argument("--traces", type=Path, nargs="+", default=[], metavar="FILE", help="recorded samples")
    parser.add_argument("--keep", type=Path, metavar="FILE", help="write the verdicts on recorded answers there")
    parser.add_argument("--before", type=Path, metavar="FILE", help="verdicts that another version kept")
    options = parser.parse_args()
    return exit_code(lambda: report(options.json, "equality", measure(options)), interrupted="nothing is kept")


if __name__ == "__main__":
    sys.exit(main())
