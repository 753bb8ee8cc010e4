"""The byte-level BPE tokenizer of the mini models: words whole, digits single, any text encodes."""

from __future__ import annotations

import random
from itertools import islice
from typing import TYPE_CHECKING

from adaptive_ttc.mini.minimath import FAMILIES, LEADS, MiniMath

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

BOS, EOS, USER, ASSISTANT, SYSTEM, PAD = (
    "<|begin|>", "<|end|>", "<|user|>", "<|assistant|>", "<|system|>", "<|pad|>",
)  # fmt: skip

CHAT_TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}"
    "{{ '<|' + message['role'] + '|>' + message['content'] + '<|end|>' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"
)

REVISE = "Check your solution and try again."
"""The user turn between two attempts of a sequential revision."""

_PIECES = r" ?\\[a-z]+ ?|[A-Za-z]+ ?|[0-9]|\n\n| ?[+=/-] |[^\sA-Za-z0-9] ?|\s"


def train_tokenizer(vocab_size: int = 1024, problems: int = 20_000) -> PreTrainedTokenizerFast:
    """Learn the merges from seeded MiniMath texts of every family.

    Args:
        vocab_size: at most so many entries, special tokens and the 256 bytes included.
        problems: how many problems, with solutions, to learn from.
    """
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    source = MiniMath(families=tuple(FAMILIES))
    rng = random.Random(0)
    texts = (
        exercise.question + "\n\n" + source.solve(exercise, rng, {})
        for _, _, exercise in islice(source.exercises("train", 0), problems)
    )
    leads = (f"{lead}3" for lead in LEADS for _ in range(problems // 10))
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(_PIECES), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        min_frequency=20,
        special_tokens=[PAD, BOS, EOS, USER, ASSISTANT, SYSTEM],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator([*texts, *leads, *[REVISE] * 1000], trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token=BOS,
        eos_token=EOS,
        pad_token=PAD,
        model_max_length=4096,
        clean_up_tokenization_spaces=False,
        chat_template=CHAT_TEMPLATE,
    )
