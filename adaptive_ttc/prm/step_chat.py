"""Renders a solution as the chat that RLHFlow's PRMs read, with the place of every label; it knows no weights.

Every step is a user turn, the first one after the question and a space; the assistant answers each
with ``+`` (right so far) or ``-``. Format: RLHFlow's ``math-rm/prm_evaluate.py``.
"""

from __future__ import annotations

import re
from typing import Any

from adaptive_ttc.errors import ConfigError
from adaptive_ttc.prm.base import ScoreRequest
from adaptive_ttc.prm.row import Row

TEMPLATE_DATE = "26 Jul 2024"
"""The date given to templates that print one: Llama 3.1's default, and the same every day."""


class ControlTokens:
    """The strings that a tokenizer reads as control tokens, such as the end of a turn.

    A policy's text is untrusted: one that writes ``<|eot_id|>`` would speak in the PRM's own turns.
    """

    def __init__(self, tokenizer: Any) -> None:
        template = template_of(tokenizer) if tokenizer.chat_template else ""
        tokens = {
            token.content
            for token in tokenizer.added_tokens_decoder.values()
            if len(token.content.strip()) > 1 and (token.special or token.content in template)
        }
        self._pattern = re.compile("|".join(map(re.escape, sorted(tokens, key=len, reverse=True))) or "(?!)")

    def neutralise(self, text: str) -> str:
        """The text with a space inside every control token, so that it is read as text."""
        return self._pattern.sub(lambda match: f"{match[0][0]} {match[0][1:]}", text)


def template_of(tokenizer: Any) -> str:
    """The tokenizer's one chat template.

    Raises:
        ConfigError: it has none, several without a default, or one that prints today's date whatever it is given.
    """
    template = tokenizer.chat_template
    if isinstance(template, dict):
        template = template.get("default")
    if not isinstance(template, str):
        raise ConfigError("the tokenizer has no chat template; add the model's chat_template.jinja to its folder")
    if "strftime_now" in template and "date_string" not in template:
        raise ConfigError(
            "the chat template prints today's date, so scores would change daily; "
            "edit it to use the variable date_string where that is defined"
        )
    return template


class StepChat:
    """Renders through the tokenizer's own chat template.

    The labels are found by rendering the chat twice, all ``+`` and all ``-``: the two differ in the
    label tokens and nowhere else, whatever the template writes and whatever signs the steps hold.

    Args:
        tokenizer: a Hugging Face tokenizer with a chat template.

    Attributes:
        plus: the id of ``+`` where the template puts it (``+`` and ``▁+`` may be different tokens).
        minus: that of ``-``.

    Raises:
        ConfigError: the labels are not single tokens here, or later turns change how earlier ones are rendered.
    """

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer
        template_of(tokenizer)
        self._control = ControlTokens(tokenizer)
        self.plus, self.minus = self._find_labels()

    def render(self, request: ScoreRequest) -> Row:
        """A solution up to the token before the last label, with the places at which the labels are predicted.

        Raises:
            ConfigError: text beside which the labels are not single tokens.
        """
        rendered, labels = self._encode(request)
        if labels != {(self.plus, self.minus)}:
            raise ConfigError(_NOT_SINGLE)
        return rendered

    def _encode(self, request: ScoreRequest) -> tuple[Row, set[tuple[int, int]]]:
        """The rendered solution, and the pairs of label tokens that were met in it."""
        steps = [self._control.neutralise(step.strip()) for step in request.steps]
        steps[0] = f"{self._control.neutralise(request.question)} {steps[0]}"
        chats = [[turn for step in steps for turn in _turns(step, label)] for label in "+-"]
        plus, minus = self._tokenizer.apply_chat_template(chats, date_string=TEMPLATE_DATE, return_dict=False)
        places = [place for place, (a, b) in enumerate(zip(plus, minus, strict=False)) if a != b]
        if len(plus) != len(minus) or len(places) != len(steps) or places[0] == 0:
            raise ConfigError(_NOT_SINGLE)
        labels = {(plus[place], minus[place]) for place in places}
        return Row.labelled(plus[: places[-1]], [place - 1 for place in places]), labels

    def _find_labels(self) -> tuple[int, int]:
        """Learn the label tokens from a trial chat, and see that later turns leave earlier ones as they are."""
        steps = ("1 + 2 = 3.", "3 - 3 = 0.", "So is it + or -?")
        trial, labels = self._encode(ScoreRequest("What is 1 + 2 - 3?", steps))
        for k in (1, 2):
            shorter, _ = self._encode(ScoreRequest("What is 1 + 2 - 3?", steps[:k]))
            end = len(shorter.token_ids)
            if (shorter.token_ids, shorter.positions) != (trial.token_ids[:end], trial.positions[:k]):
                raise ConfigError(
                    "the chat template renders a turn differently once others follow it, so the score of a step "
                    "would depend on later steps; give the PRM a template that renders each turn by itself"
                )
        texts = {tuple(self._tokenizer.decode([label]).strip() for label in pair) for pair in labels}
        if len(labels) != 1 or texts != {("+", "-")}:
            raise ConfigError(_NOT_SINGLE)
        return labels.pop()


_NOT_SINGLE = (
    "'+' and '-' are not single tokens of their own where the chat template puts them, so this model cannot be read "
    "as an RLHFlow PRM; use the tokenizer and the template that it was trained with"
)


def _turns(step: str, label: str) -> tuple[dict[str, str], dict[str, str]]:
    return {"role": "user", "content": step}, {"role": "assistant", "content": label}
