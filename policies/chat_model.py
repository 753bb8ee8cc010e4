"""What a chat model's folder says, without its weights' values: chat template, name, fingerprint, size, end tokens.

Every policy over the same folder reads the same, so that what was calibrated with one engine serves with another.
"""

from __future__ import annotations

import copy
import inspect
import json
import re
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

from jinja2 import TemplateError

from adaptive_ttc.answers.thinking import ThinkingTags
from adaptive_ttc.errors import ConfigError, PromptWarning, see, warn
from adaptive_ttc.policies.requests import TokenTexts
from adaptive_ttc.policies.thinking_tags import AUTO, Rendering, Thinking, thinking_tags
from adaptive_ttc.prm.checkpoint import fingerprint, locate
from adaptive_ttc.prm.format import ControlTokens
from adaptive_ttc.types import Message, Problem

MATH_SYSTEM_PROMPT = (
    "Solve the problem step by step. Write one short step at a time, and leave one blank line between two steps. "
    "End with a step that gives the final answer, and nothing after it, as \\boxed{answer}."
)
"""Asks a general instruct model for what the library reads: steps between blank lines, the answer in ``\\boxed{}``.

A model that was trained on this form, such as the embedded one, needs no system prompt; :func:`needs_prompt` says
which are asked where the system prompt is ``auto``.
"""

GENERAL_VOCABULARY = 8192
"""Tokens under which a vocabulary is of a model for one kind of problems, which was trained on a form of its own."""

_OF_MATHEMATICS = re.compile("math|numina", re.IGNORECASE)  # in names of models

# Templates that print today's date would change the prompt, and so every result, daily.
_TODAY = date(2024, 7, 26)
_DATE_PARTS = ("d", "m", "b", "B", "y", "Y", "a", "A", "j", "H", "M", "S")
_FIXED_CLOCK = (
    "{% macro strftime_now(format) %}{{ format"
    + "".join(f" | replace('%{part}', '{_TODAY.strftime('%' + part)}')" for part in _DATE_PARTS)
    + " }}{% endmacro %}{{ '' }}"
)


# fmt: off
_TAKEN = frozenset({  # arguments of ``apply_chat_template`` that are not for a template
    "conversation", "messages", "add_generation_prompt", "continue_final_message", "tokenize", "return_dict",
    "return_tensors", "sanitize_control_tokens", "date_string", "chat_template", "strftime_now",
})
# fmt: on

PROMPTS = 256  # problems whose prompt is kept: a run asks for it several times


class ChatFormat:
    """A tokenizer's chat template with a fixed date and system prompt.

    Args:
        tokenizer: a Hugging Face tokenizer.
        system_prompt: put before problems that bring no system message; None and the empty string add nothing.
        source: where the tokenizer comes from, for messages.
        thinking: the tags of a reasoning model, see :data:`~adaptive_ttc.policies.thinking_tags.Thinking`.
        template_kwargs: further arguments of the template, such as ``{"enable_thinking": False}``.

    Attributes:
        thinking: how the model marks its thoughts; None for one that does not think.
        template_kwargs: further arguments of the template.

    Raises:
        ConfigError: the tokenizer has no chat template, the template refuses the system prompt or an argument, or
            ``thinking`` names no tags.
    """

    def __init__(
        self,
        tokenizer: Any,
        system_prompt: str | None,
        source: str,
        *,
        thinking: Thinking = AUTO,
        template_kwargs: Mapping[str, Any] | None = None,
    ) -> None:
        if not getattr(tokenizer, "chat_template", None):
            raise ConfigError(
                f"{source} has no chat template, so nothing says how a problem is put to it; take its instruct "
                "version, or save a template with it (tokenizer.chat_template = ...; tokenizer.save_pretrained) "
                f"{see('models.md#policies-what-writes-solutions')}"
            )
        self.tokenizer = tokenizer
        template: str = tokenizer.get_chat_template()
        # a macro hides transformers' function of the same name, which reads the clock
        self._template = _FIXED_CLOCK + template if "strftime_now" in template else template
        # transformers before 5.20 knows no such argument, and would take control tokens in a problem for its own
        known = "sanitize_control_tokens" in inspect.signature(tokenizer.apply_chat_template).parameters
        self._breaks_up = None if known else ControlTokens(tokenizer).broken_up
        # rendering sets options on the tokenizer, which must not happen in two threads at once
        self._lock = threading.Lock()
        self.system_prompt = system_prompt or ""
        self._system = (Message("system", system_prompt),) if system_prompt else ()
        self._encoded = lru_cache(maxsize=PROMPTS)(self._encode)
        self.template_kwargs = dict(template_kwargs or {})
        if taken := sorted(set(self.template_kwargs) & _TAKEN):
            raise ConfigError(f"chat_template_kwargs may not set {', '.join(taken)}, which the library does itself")
        self._asked = () if thinking == AUTO else (json.dumps(["thinking", thinking]),)
        try:
            self.thinking = thinking_tags(tokenizer, self._rendering(template), thinking)
            self.encode(Problem.of("1 + 1"))
        except ConfigError as error:
            remedy = "; if it takes no system prompt, pass system_prompt=None" if self._system else ""
            raise ConfigError(f"the chat template of {source} cannot be used: {error}{remedy}") from error

    @property
    def format(self) -> tuple[str, ...]:
        """What decides, besides the tokenizer's own files, how a problem is rendered."""
        kwargs = (json.dumps(self.template_kwargs, sort_keys=True, default=str),) if self.template_kwargs else ()
        return (_TODAY.isoformat(), *(message.content for message in self._system), *kwargs, *self._asked)

    def turns(self, messages: Sequence[Message]) -> list[dict[str, str]]:
        """Chat messages as dicts, behind the system prompt where they bring none."""
        own = messages[0].role == "system"
        return [{"role": one.role, "content": one.content} for one in (*(() if own else self._system), *messages)]

    def encode(self, problem: Problem) -> tuple[int, ...]:
        """Token ids of the rendered problem, up to where the solution begins; ConfigError if the template refuses it.

        Control tokens in the problem's own text are encoded as ordinary text (with a space inside them by releases of
        transformers before 5.20).
        """
        return self._encoded(problem.messages)

    def _encode(self, messages: tuple[Message, ...]) -> tuple[int, ...]:
        return self._rendered(messages, begin=True)

    def _rendered(self, messages: Sequence[Message], *, begin: bool) -> tuple[int, ...]:
        """The conversation, with the assistant's turn begun or not."""
        sanitized: dict[str, Any] = {"sanitize_control_tokens": True}
        if self._breaks_up is not None:
            messages, sanitized = [replace(one, content=self._breaks_up(one.content)) for one in messages], {}
        try:
            with self._lock:
                ids: Sequence[int] = self.tokenizer.apply_chat_template(
                    self.turns(messages),
                    add_generation_prompt=begin,
                    tokenize=True,
                    return_dict=False,
                    **sanitized,
                    date_string=_TODAY.strftime("%d %b %Y"),
                    chat_template=self._template,
                    **self.template_kwargs,
                )
        except (TemplateError, ValueError, TypeError) as error:
            raise ConfigError(f"the chat template refuses these messages: {error}") from error
        return tuple(ids)

    def _rendering(self, template: str) -> Rendering:
        """The template, and what it writes where the assistant's turn begins."""
        asked = Problem.of("1 + 1").messages
        before, whole = self._rendered(asked, begin=False), self._rendered(asked, begin=True)
        begun = whole[len(before) :] if whole[: len(before)] == before else ()
        return Rendering(template, self.tokenizer.decode(list(begun)))

    def written_behind(self) -> tuple[int, ...]:
        """Token ids that the template writes behind the text of a solution (here ``2``) and before another turn."""
        asked = Problem.of("1 + 1").messages
        whole = self._rendered((*asked, Message("assistant", "2")), begin=False)
        return whole[len(self._rendered(asked, begin=False)) :]

    def decode(self, token_ids: Sequence[int]) -> str:
        """The text of generated tokens, special tokens left out."""
        with self._lock:
            return _decode(self.tokenizer, token_ids)

    def token_texts(self) -> TokenTexts:
        """A decoder for another thread; ConfigError if the tokenizer cannot write the letter ``a``, the anchor."""
        tokenizer = copy.deepcopy(self.tokenizer)
        ids: Sequence[int] = tokenizer.encode("a", add_special_tokens=False)
        if not ids or not _decode(tokenizer, ids[-1:]):
            raise ConfigError("the tokenizer cannot write the letter 'a'; use one with byte fallback")
        return TokenTexts(partial(_decode, tokenizer), ids[-1])


def _decode(tokenizer: Any, token_ids: Sequence[int]) -> str:
    text: str = tokenizer.decode(list(token_ids), skip_special_tokens=True, clean_up_tokenization_spaces=False)
    return text


def needs_prompt(name: str, chat: ChatFormat) -> bool:
    """Whether a model is a general instruct model, which puts answers into ``\\boxed{}`` only if it is asked to.

    It is none where its name says mathematics, its chat template asks for the box, it thinks (such models are trained
    on boxes, and best asked without a system prompt), or its vocabulary is below :data:`GENERAL_VOCABULARY`.
    """
    asked = "boxed" in chat.tokenizer.get_chat_template()
    general = len(chat.tokenizer) >= GENERAL_VOCABULARY and _OF_MATHEMATICS.search(name) is None
    return general and not asked and chat.thinking is None


def _asking(made: Callable[[str], ChatFormat], source: str) -> ChatFormat | None:
    """A model's chat format with the prompt for mathematics; None where its template takes no system message."""
    off = "system_prompt='' (in a recipe, system_prompt = \"\") asks for nothing"
    try:
        chat = made(MATH_SYSTEM_PROMPT)
        taken = "boxed" in chat.tokenizer.decode(chat.encode(Problem.of("1 + 1")))
    except ConfigError:
        taken = False
    if not taken:
        message = (
            f"the chat template of {source} takes no system message that would ask for \\boxed{{}}: ask in the "
            f"problems, or say what answers are {see('answers.md')}; {off}"
        )
        warn(message, PromptWarning)
        return None
    warn(f"{source} is asked for steps and the answer in \\boxed{{}} by a system prompt; {off}", PromptWarning)
    return chat


@dataclass(frozen=True, slots=True)
class ChatModel:
    """What is known of a chat model, whatever engine samples.

    Attributes:
        folder: where its files are.
        chat: its chat template.
        name: its name on the Hub, or its folder's.
        source: as it was named when it was loaded: a path, or its name on the Hub.
        fingerprint: 64 hexadecimal digits; covers weights, config, tokenizer, chat template, system prompt and end
            tokens.
        eos: tokens that end a solution.
        parameters: those used in a token's forward pass, without an untied embedding table.
        vocab_size: token ids are below it.
        positions: context length in its config, or None.
        revision_prompt: the user turn after which it was trained to write a better attempt, from its config, or None.
    """

    folder: Path
    chat: ChatFormat
    name: str
    source: str
    fingerprint: str
    eos: frozenset[int]
    parameters: int
    vocab_size: int
    positions: int | None
    revision_prompt: str | None

    @property
    def end(self) -> int:
        """The token with which a solution is to end: as the chat template ends it, else the least end token."""
        return next((token for token in self.chat.written_behind() if token in self.eos), min(self.eos))

    @classmethod
    def of(
        cls,
        path_or_hub_name: str | Path,
        folder: Path,
        model: Any,
        tokenizer: Any,
        *,
        system_prompt: str | None,
        eos_token_ids: Iterable[int] | None,
        thinking: Thinking = AUTO,
        chat_template_kwargs: Mapping[str, Any] | None = None,
    ) -> ChatModel:
        """Read off a loaded model, with or without its weights' values; errors as :func:`read_chat_model`."""
        source = str(path_or_hub_name)
        name = folder.resolve().name if Path(path_or_hub_name).is_dir() else source
        made = partial(ChatFormat, tokenizer, source=source, thinking=thinking, template_kwargs=chat_template_kwargs)
        chat = made(None if system_prompt == AUTO else system_prompt)
        if system_prompt == AUTO and needs_prompt(name, chat):
            chat = _asking(made, source) or chat
        eos = eos_tokens(model.generation_config, tokenizer) if eos_token_ids is None else frozenset(eos_token_ids)
        return cls(
            folder=folder,
            chat=chat,
            name=name,
            source=source,
            fingerprint=fingerprint(folder, "policy", *chat.format, *map(str, sorted(eos))),
            eos=eos,
            parameters=forward_parameters(model),
            vocab_size=model.get_input_embeddings().weight.shape[0],
            positions=getattr(model.config.get_text_config(), "max_position_embeddings", None),
            revision_prompt=getattr(model.config, "revision_prompt", None),
        )


def read_chat_model(
    path_or_hub_name: str | Path,
    *,
    system_prompt: str | None = None,
    eos_token_ids: Iterable[int] | None = None,
    revision: str | None = None,
    thinking: Thinking = AUTO,
    chat_template_kwargs: Mapping[str, Any] | None = None,
) -> ChatModel:
    """Read a model's folder; its weights are neither loaded nor given memory.

    Args:
        path_or_hub_name: a Hugging Face folder of a causal language model, or ``owner/name``.
        system_prompt: put before problems without a system message; None adds nothing, ``auto`` as :func:`needs_prompt`
            says.
        eos_token_ids: replace the model's own end tokens.
        revision: of a Hub model.
        thinking, chat_template_kwargs: see :class:`ChatFormat`.

    Raises:
        ConfigError: it cannot be read, has no chat template, or nothing says what ends a solution.
    """
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, GenerationConfig

    folder = locate(path_or_hub_name, revision=revision)
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder)
        with torch.device("meta"):
            model = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(folder))
        if (folder / "generation_config.json").is_file():
            model.generation_config = GenerationConfig.from_pretrained(folder)
    except (ImportError, OSError, ValueError) as error:
        raise ConfigError(f"{folder} is no readable causal language model: {error}") from error
    return ChatModel.of(
        path_or_hub_name,
        folder,
        model,
        tokenizer,
        system_prompt=system_prompt,
        eos_token_ids=eos_token_ids,
        thinking=thinking,
        chat_template_kwargs=chat_template_kwargs,
    )


def eos_tokens(generation_config: Any, tokenizer: Any) -> frozenset[int]:
    """Tokens that end a solution: the generation config's, else the tokenizer's; ConfigError if neither names any."""
    named = getattr(generation_config, "eos_token_id", None)
    if named is None:
        named = tokenizer.eos_token_id
    if named is None:
        raise ConfigError(
            "neither the generation config nor the tokenizer names an end-of-sequence token; pass eos_token_ids"
        )
    return frozenset([named] if isinstance(named, int) else named)


def forward_parameters(model: Any) -> int:
    """Parameters that multiply something in a token's forward pass."""
    lookup = model.get_input_embeddings().weight
    head = model.get_output_embeddings()
    tied = head is not None and head.weight is lookup
    every: int = sum(parameter.numel() for parameter in model.parameters())
    return every if tied else every - int(lookup.numel())


class ChatModelPolicy:
    """The part of a policy that its model's folder decides.

    Attributes:
        model: the model.
        name, source, fingerprint, parameters, revision_prompt: see :class:`ChatModel`.
        thinking: how it marks its thoughts; None where it does not think.
        system_prompt: put before problems that bring no system message; empty for none.
        max_context: most tokens of prompt and solution together.
    """

    def __init__(self, model: ChatModel, max_context: int) -> None:
        self.model = model
        self.name, self.source, self.fingerprint = model.name, model.source, model.fingerprint
        self.parameters, self.revision_prompt = model.parameters, model.revision_prompt
        self.thinking: ThinkingTags | None = model.chat.thinking
        self.system_prompt: str = model.chat.system_prompt
        self.max_context = max_context

    def encode(self, problem: Problem) -> tuple[int, ...]:
        """Render the problem through the chat template, up to where the solution begins.

        ConfigError if the template refuses the messages, or the prompt leaves no room for a token.
        """
        ids = self.model.chat.encode(problem)
        if len(ids) >= self.max_context:
            raise ConfigError(
                f"problem {problem.id!r} is {len(ids)} tokens long and the context holds {self.max_context}, the "
                "solution included; shorten it or take a policy with a longer context"
            )
        return ids

    def decode(self, token_ids: Sequence[int]) -> str:
        """The text of generated tokens, special tokens left out."""
        return self.model.chat.decode(token_ids)
