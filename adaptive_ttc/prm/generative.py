"""Generative verifiers and judges: a language model writes its verdict on a solution, which a rule reads.

GenPRM (arXiv 2504.00891) and ThinkPRM (arXiv 2504.16828) reason about the steps before they judge; a judge grades a
finished solution (arXiv 2306.05685), or compares it with others in both orders. What they write is charged.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from adaptive_ttc.errors import ConfigError
from adaptive_ttc.loading import load_policy
from adaptive_ttc.policy import Policy
from adaptive_ttc.prm.base import RewardModel, Scored, ScoreRequest, Traits, check_steps
from adaptive_ttc.prm.registry import PRMReader, register_prm
from adaptive_ttc.prm.written import VerdictRule, Writer, Written
from adaptive_ttc.tasks import side_by_side
from adaptive_ttc.types import Message, join_steps

VERIFY = (
    "Here are a problem and a solution, of which there may be more to come.\n\n[Problem]\n{question}\n\n[Solution]\n"
    "{steps}\n\nCheck it step by step. Then write one last line, and nothing after it: Verdict: yes if every step is "
    "correct, else Verdict: no."
)
GRADE = (
    "Grade a solution by whether its final answer is right.\n\n[Problem]\n{question}\n\n[Solution]\n{solution}\n\n"
    "Work out the answer for yourself and compare. Then write one last line, and nothing after it: Grade: followed by "
    "a whole number from 1 (surely wrong) to 10 (surely right)."
)
COMPARE = (
    "Which of two solutions is right?\n\n[Problem]\n{question}\n\n[Solution A]\n{solution}\n\n[Solution B]\n{rival}\n\n"
    "Check both. Neither their order nor their length counts. Then write one last line, and nothing after it: "
    "Better: A, or Better: B, or Better: tie if you cannot tell."
)


@dataclass(frozen=True, slots=True, kw_only=True)
class VerifierSettings:
    """How a verifier is asked and read.

    Attributes:
        prompt: of the user's turn, with the places ``{question}``, and ``{steps}`` (numbered, a line each, for verdicts
            on steps) or ``{solution}`` (as it is); ``{rival}`` beside ``{solution}`` where solutions are compared.
        system: the system's turn; empty for none.
        verdict: regular expression with a group ``verdict``, perhaps ``step``, see
            :class:`~adaptive_ttc.prm.written.VerdictRule`; the other attributes of that name are its own.
        right, wrong, grades: see there. Of compared solutions, ``right`` are the words for A, ``wrong`` those for B.
        ties: words for neither, where solutions are compared.
        samples: verdicts of one solution, whose mean counts.
        max_tokens: of one verdict.
        temperature: 0 is greedy; above it where there are several samples.
        finished_only: whether it is shown finished solutions alone.
        rivals: with how many other solutions one is compared, each in both orders.
        seed: of what is written.
    """

    prompt: str = VERIFY
    system: str = ""
    verdict: str = r"verdict:\W*(?P<verdict>yes|no)\b"
    right: tuple[str, ...] = ("yes", "correct")
    wrong: tuple[str, ...] = ("no", "incorrect")
    ties: tuple[str, ...] = ("tie",)
    grades: tuple[float, float] | None = None
    samples: int = 1
    max_tokens: int = 1024
    temperature: float = 0.0
    finished_only: bool = False
    rivals: int = 0
    seed: int = 0
    rule: VerdictRule = field(init=False)

    def __post_init__(self) -> None:
        for name in ("samples", "max_tokens"):
            if not isinstance(getattr(self, name), int) or getattr(self, name) < 1:
                raise ConfigError(f"{name} is a whole number of at least 1; got {getattr(self, name)!r}")
        if not isinstance(self.rivals, int) or self.rivals < 0:
            raise ConfigError(f"rivals is a whole number of at least 0; got {self.rivals!r}")
        if not 0 <= self.temperature < math.inf:
            raise ConfigError(f"temperature is at least 0; got {self.temperature}")
        if self.samples > 1 and not self.temperature > 0:
            raise ConfigError(f"samples={self.samples} at temperature 0 would be the same: give a temperature above it")
        places = ["{question}", "{solution}", "{rival}"] if self.rivals else ["{question}"]
        missing = [place for place in places if place not in self.prompt]
        if missing or not ("{solution}" in self.prompt or "{steps}" in self.prompt):
            raise ConfigError(f"the prompt of a verifier lacks the place {(*missing, '{solution} or {steps}')[0]}")
        for name in ("right", "wrong", "ties"):  # lists from a recipe
            object.__setattr__(self, name, tuple(getattr(self, name)))
        if self.grades is not None and len(self.grades) != 2:
            raise ConfigError(f"grades are the least and the highest, such as [1, 10]; got {self.grades}")
        grades = None if self.grades is None else (float(self.grades[0]), float(self.grades[1]))
        rule = VerdictRule(pattern=self.verdict, right=self.right, wrong=self.wrong, grades=grades)
        object.__setattr__(self, "grades", grades)
        object.__setattr__(self, "rule", rule)

    def messages(self, question: str, steps: Sequence[str], rival: Sequence[str] = ()) -> tuple[Message, ...]:
        """What is asked. The texts are put in once: a place that a text holds stays as it is."""
        told = {
            "{question}": question,
            "{solution}": join_steps(steps),
            "{steps}": "\n".join(f"Step {number}: {step.strip()}" for number, step in enumerate(steps, start=1)),
            "{rival}": join_steps(rival),
        }
        parts = [self.prompt]
        for place in told:
            parts = [piece for part in parts for piece in _split(part, place)]
        content = "".join(told.get(part, part) for part in parts)
        return (*((Message("system", self.system),) if self.system else ()), Message("user", content))


JUDGE: dict[str, Any] = {
    "prompt": GRADE,
    "verdict": r"grade:\W*(?P<verdict>\d+(?:\.\d+)?)",
    "grades": (1.0, 10.0),
    "finished_only": True,
}
PAIRWISE: dict[str, Any] = {
    "prompt": COMPARE,
    "verdict": r"better:\W*(?P<verdict>a|b|tie)\b",
    "right": ("a",),
    "wrong": ("b",),
    "finished_only": True,
    "rivals": 2,
}


class GenerativeVerifier:
    """A :class:`~adaptive_ttc.prm.base.RewardModel` over any policy: one prompt, or several samples of it, a solution.

    The score is the mean over the samples whose verdict can be read: the probability of the verdict's own tokens where
    the policy tells it (1 without), or that less than 1 for a wrong one; or the grade. Without any it has no score.
    """

    def __init__(self, policy: Policy, settings: VerifierSettings, *, kind: str = "generative", owned: bool = False):
        self.settings = settings
        self._writer = Writer(
            policy,
            max_tokens=settings.max_tokens,
            temperature=settings.temperature,
            seed=settings.seed,
            closing=policy.aclose if owned else None,
        )
        self.name, self.source = f"{kind}:{policy.name}", f"{kind}:{getattr(policy, 'source', policy.name)}"
        self.fingerprint = self._writer.fingerprint("generative-1", settings)
        self.parameters = policy.parameters
        matches = 2 if settings.rivals else 1
        self.traits = Traits(
            finished_only=settings.finished_only,
            written=matches * settings.samples * settings.max_tokens,
            rivals=settings.rivals,
        )

    def count_tokens(self, request: ScoreRequest) -> int:
        """Tokens of the prompts, with an empty cache; ConfigError where one leaves no room for a verdict."""
        check_steps(request)
        return sum(map(self._writer.count, self._asked(request)))

    async def score(self, request: ScoreRequest) -> Scored:
        """Score a solution; one that has no rivals gets .5, for nothing. EngineError where the policy fails."""
        self.count_tokens(request)  # refuses what leaves no room
        asked = self._asked(request)
        written: list[Written | None] = [None] * len(asked)

        async def ask(index: int) -> None:
            written[index] = await self._writer.write(asked[index], index)

        async with side_by_side() as tasks:
            for index in range(len(asked)):
                tasks.start_soon(ask, index)
        replies = [one for one in written if one is not None]
        tokens = sum(one.tokens for one in replies)
        return Scored(
            scores=self._scores(replies, len(request.steps)),
            prm_tokens=tokens + sum(one.read for one in replies),
            cached_tokens=sum(one.cached for one in replies),
            written_tokens=tokens,
        )

    async def aclose(self) -> None:
        """Refuse later requests; the policy is ended with this if it was loaded for it."""
        await self._writer.aclose()

    def _asked(self, request: ScoreRequest) -> list[tuple[Message, ...]]:
        """All prompts; of a comparison, the solution as A and as B in turn."""
        ask = self.settings.messages
        if not self.settings.rivals:
            return [ask(request.question, request.steps)] * self.settings.samples
        pairs = [pair for rival in request.rivals for pair in ((request.steps, rival), (rival, request.steps))]
        return [ask(request.question, *pair) for pair in pairs for _ in range(self.settings.samples)]

    def _scores(self, replies: Sequence[Written], steps: int) -> tuple[float, ...]:
        rule = self.settings.rule
        if not self.settings.rivals:
            read = [rule.read(one.text, steps, one.sure) for one in replies if one.text is not None]
            return _means([scores for scores in read if scores])
        if not replies:
            return (0.5,) * steps
        shares = []
        for index, one in enumerate(replies):
            share = self._share(one)
            if share is not None:
                second = index // self.settings.samples % 2  # where the solution stood as B
                shares.append((1 - share if second else share,) * steps)
        return _means(shares)

    def _share(self, one: Written) -> float | None:
        """What of the win is A's; None where nothing can be read."""
        if one.text is None:
            return None
        read = self.settings.rule.read(one.text, 1, lambda first, last: 1.0)
        ties = VerdictRule(pattern=self.settings.verdict, right=self.settings.ties, wrong=())
        tied = ties.read(one.text, 1, lambda first, last: 1.0)
        return read[0] if read else 0.5 if tied else None


def _means(scores: Sequence[tuple[float, ...]]) -> tuple[float, ...]:
    return tuple(math.fsum(column) / len(column) for column in zip(*scores, strict=True))


def _split(text: str, place: str) -> list[str]:
    """A text at every place, with the places between; a place by itself stays."""
    if text == place or place not in text:
        return [text]
    pieces: list[str] = []
    for number, piece in enumerate(text.split(place)):
        pieces += [place] if number else []
        pieces += [piece] if piece else []
    return pieces


_KNOWN = tuple(one.name for one in fields(VerifierSettings) if one.init)


def _reader(kind: str, own: dict[str, Any]) -> PRMReader:
    """A reader whose settings are a verifier's; what else is given goes to the engine."""

    def load(path_or_name: str | Path, *, engine: str = "transformers", **settings: Any) -> RewardModel:
        chosen = {name: settings.pop(name) for name in _KNOWN if name in settings}
        verifier = VerifierSettings(**{**own, **chosen})  # checked before anything is loaded
        return GenerativeVerifier(load_policy(path_or_name, engine=engine, **settings), verifier, kind=kind, owned=True)

    return PRMReader(name=kind, load=load)


for _kind, _own in {"generative": {}, "judge": JUDGE, "pairwise": PAIRWISE}.items():
    register_prm(_reader(_kind, dict(_own)))
