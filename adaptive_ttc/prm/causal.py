"""A causal language model as a PRM uses it: hidden states at chosen places, the head apart; it knows no score.

torch and transformers are imported when a model is loaded or run, never with this module.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from adaptive_ttc.errors import ConfigError, EngineError

if TYPE_CHECKING:
    import torch

DTYPES = ("float32", "bfloat16", "float16")


class CausalBody:
    """The transformer of a causal LM without its output head.

    Args:
        model: a Hugging Face causal LM in evaluation mode.

    Attributes:
        parameters: of the transformer, without the embedding table (a look-up costs no multiplication).
        max_context: tokens that it can read, or None where its config does not say.

    Raises:
        ConfigError: its logits are not just the head's product with the last hidden states.
    """

    def __init__(self, model: Any) -> None:
        self._decoder = model.get_decoder()
        self.head = model.get_output_embeddings()
        embedding = model.get_input_embeddings().weight
        self.parameters = sum(p.numel() for p in self._decoder.parameters() if p is not embedding)
        self.max_context: int | None = getattr(model.config.get_text_config(), "max_position_embeddings", None)
        self._device = embedding.device
        self._check_head(model)

    def hidden(self, sequences: Sequence[Sequence[int]], positions: Sequence[Sequence[int]]) -> torch.Tensor:
        """Last hidden states of right-padded sequences, in one forward pass.

        Args:
            sequences: token ids, one sequence an item.
            positions: for every item the indices that are wanted.

        Returns:
            Shape (sum of ``len(positions[i])``, hidden size), item after item. Where there is padding
            it stands right of every real token, and is masked, so an item's values do not depend on its company.
        """
        import torch

        width = max(map(len, sequences))
        ids = torch.zeros((len(sequences), width), dtype=torch.long)
        mask = torch.zeros((len(sequences), width), dtype=torch.long)
        for row, sequence in enumerate(sequences):
            ids[row, : len(sequence)] = torch.tensor(sequence, dtype=torch.long)
            mask[row, : len(sequence)] = 1
        rows = torch.tensor([row for row, wanted in enumerate(positions) for _ in wanted], device=self._device)
        columns = torch.tensor([column for wanted in positions for column in wanted], device=self._device)
        with torch.inference_mode():
            states = self._decoder(
                input_ids=ids.to(self._device), attention_mask=mask.to(self._device), use_cache=False
            ).last_hidden_state
            picked: torch.Tensor = states[rows, columns]
        return picked

    def release(self) -> None:
        """Let go of the weights."""
        self._decoder = self.head = None

    def _check_head(self, model: Any) -> None:
        """Compare with the model's own logits: a cap, scale or projection behind the head would change scores."""
        import torch

        if self.head is None or getattr(model.config.get_text_config(), "final_logit_softcapping", None):
            raise ConfigError(_ODD_HEAD.format(type(model).__name__))
        ids = torch.arange(8, device=self._device)[None] % model.get_input_embeddings().weight.shape[0]
        with torch.inference_mode():
            theirs = model(input_ids=ids, use_cache=False).logits.float()
            ours = self.head(self._decoder(input_ids=ids, use_cache=False).last_hidden_state).float()
        tolerance = 1e-3 if self.head.weight.dtype == torch.float32 else 2e-2
        if ours.shape != theirs.shape or not (ours - theirs).abs().max() <= tolerance * theirs.abs().max():
            raise ConfigError(_ODD_HEAD.format(type(model).__name__))


_ODD_HEAD = (
    "{}: the logits are not the output head's product with the last hidden states (a cap, a scale, a projection, "
    "or not a number); this reader cannot read such a model, register one that can"
)


@contextmanager
def without_progress_bars() -> Iterator[None]:
    """Load without transformers' progress bars, which belong to programs and not to a library."""
    from transformers.utils import logging

    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()


def load_causal(folder: Path, *, device: str, dtype: str, threads: int | None) -> tuple[Any, Any]:
    """Load a causal LM and its tokenizer from a folder of safetensors.

    Args:
        folder: a Hugging Face model folder.
        device: where it runs, as torch names it.
        dtype: one of ``DTYPES``.
        threads: set torch's threads for the whole process; None leaves them alone. With fewer than
            about 20M parameters on a CPU, 1 is fastest.

    Returns:
        The model in evaluation mode, and the tokenizer.

    Raises:
        ConfigError: an unknown dtype, unreadable files, or weights that lack a part of the model.
    """
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    if dtype not in DTYPES:
        raise ConfigError(f"dtype={dtype!r} is not one of {', '.join(DTYPES)}")
    if threads is not None:
        if threads < 1:
            raise ConfigError(f"threads={threads} must be at least 1, or None")
        torch.set_num_threads(threads)
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder)
        loader: Any = AutoModelForCausalLM
        with without_progress_bars():
            model, info = loader.from_pretrained(
                folder, dtype=getattr(torch, dtype), use_safetensors=True, output_loading_info=True
            )
    except (OSError, ValueError) as error:
        raise ConfigError(f"{folder} is no loadable causal language model: {error}") from error
    if info["missing_keys"]:
        raise ConfigError(f"{folder} lacks the weights {sorted(info['missing_keys'])[:4]}; get the whole model")
    return model.eval().to(device), tokenizer


def checked(values: list[float], name: str) -> list[float]:
    """The values, if all are numbers.

    Raises:
        EngineError: the model put out something that is not a number.
    """
    if not all(map(math.isfinite, values)):
        raise EngineError(f"{name} put out values that are not numbers; try dtype='float32' or 'bfloat16'")
    return values


def smallest(*limits: int | None) -> int | None:
    """The smallest limit of those that are set."""
    return min((limit for limit in limits if limit is not None), default=None)
