"""What a model's folder says of a policy apart from its weights' values: name, fingerprint, size, prompts, end tokens.

It knows no engine: every policy over the same folder says the same, so that what was calibrated with one engine
serves with another.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from adaptive_ttc.errors import ConfigError
from adaptive_ttc.policies.chat import ChatFormat
from adaptive_ttc.prm.checkpoint import fingerprint
from adaptive_ttc.types import Problem


def policy_name(path_or_hub_name: str | Path, folder: Path) -> str:
    """The model's name on the Hub, or its folder's."""
    return folder.resolve().name if Path(path_or_hub_name).is_dir() else str(path_or_hub_name)


def policy_fingerprint(folder: Path, chat: ChatFormat, eos: Iterable[int]) -> str:
    """Changes with weights, config, tokenizer, chat template, system prompt and end tokens; 64 hexadecimal digits."""
    return fingerprint(folder, "policy", *chat.format, *map(str, sorted(eos)))


def eos_tokens(generation_config: Any, tokenizer: Any) -> frozenset[int]:
    """The tokens that end a solution: the generation config's, else the tokenizer's.

    Raises:
        ConfigError: neither names one, so that no solution would ever end.
    """
    named = getattr(generation_config, "eos_token_id", None)
    if named is None:
        named = tokenizer.eos_token_id
    if named is None:
        raise ConfigError(
            "neither the generation config nor the tokenizer names an end-of-sequence token; pass eos_token_ids"
        )
    return frozenset([named] if isinstance(named, int) else named)


def forward_parameters(model: Any) -> int:
    """Parameters that multiply something in a token's forward pass; a look-up in an embedding table does not."""
    lookup = model.get_input_embeddings().weight
    head = model.get_output_embeddings()
    tied = head is not None and head.weight is lookup
    every: int = sum(parameter.numel() for parameter in model.parameters())
    return every if tied else every - int(lookup.numel())


@dataclass(frozen=True, slots=True)
class FolderFacts:
    """What is to be known of a model that runs elsewhere.

    Attributes:
        tokenizer: a Hugging Face tokenizer.
        eos: tokens that end a solution.
        parameters: see :func:`forward_parameters`.
        vocab_size: token ids are below it.
        revision_prompt: what its config says it was trained to write a better attempt after, or None.
    """

    tokenizer: Any
    eos: frozenset[int]
    parameters: int
    vocab_size: int
    revision_prompt: str | None


class FolderPolicy:
    """The part of a policy that its model's folder decides, whatever engine samples.

    Args:
        chat: its chat template.
        name: how a person calls it.
        fingerprint: see :func:`policy_fingerprint`.
        parameters: see :func:`forward_parameters`.
        max_context: prompt and new tokens together.
        revision_prompt: what its config says it was trained to write a better attempt after, or None.
    """

    def __init__(
        self,
        chat: ChatFormat,
        *,
        name: str,
        fingerprint: str,
        parameters: int,
        max_context: int,
        revision_prompt: str | None,
    ) -> None:
        self._chat = chat
        self._name = name
        self._fingerprint = fingerprint
        self._parameters = parameters
        self._max_context = max_context
        self._revision_prompt = revision_prompt

    @property
    def name(self) -> str:
        """The model's name on the Hub, or its folder's."""
        return self._name

    @property
    def fingerprint(self) -> str:
        """Changes with weights, config, tokenizer, chat template, system prompt and end tokens; not with the engine."""
        return self._fingerprint

    @property
    def parameters(self) -> int:
        """Number of parameters that take part in a token's forward pass (an untied embedding table does not)."""
        return self._parameters

    @property
    def max_context(self) -> int:
        """Prompt and new tokens together may not exceed this."""
        return self._max_context

    @property
    def revision_prompt(self) -> str | None:
        """What config.json says under ``revision_prompt``: the user turn that asks for a better attempt."""
        return self._revision_prompt

    def encode(self, problem: Problem) -> tuple[int, ...]:
        """Render the problem through the chat template, up to where the solution begins.

        Raises:
            ConfigError: the template refuses the messages, or the prompt leaves no room for a token.
        """
        return self._chat.encode_within(problem, self.max_context)

    def decode(self, token_ids: Sequence[int]) -> str:
        """The text of generated tokens, special tokens left out."""
        return self._chat.decode(token_ids)


def read_facts(folder: Path, eos_token_ids: Iterable[int] | None = None) -> FolderFacts:
    """Read a model's folder; its weights are neither loaded nor given memory.

    Args:
        folder: a Hugging Face folder of a causal language model.
        eos_token_ids: in place of the model's own end tokens.

    Raises:
        ConfigError: it cannot be read, or nothing says what ends a solution.
    """
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, GenerationConfig

    try:
        tokenizer = AutoTokenizer.from_pretrained(folder)
        config = AutoConfig.from_pretrained(folder)
        with torch.device("meta"):
            model = AutoModelForCausalLM.from_config(config)
        stored = (folder / "generation_config.json").is_file()
        generation = GenerationConfig.from_pretrained(folder) if stored else GenerationConfig.from_model_config(config)
    except (OSError, ValueError) as error:
        raise ConfigError(f"{folder} is no readable causal language model: {error}") from error
    return FolderFacts(
        tokenizer=tokenizer,
        eos=eos_tokens(generation, tokenizer) if eos_token_ids is None else frozenset(eos_token_ids),
        parameters=forward_parameters(model),
        vocab_size=model.get_input_embeddings().weight.shape[0],
        revision_prompt=getattr(config, "revision_prompt", None),
    )
