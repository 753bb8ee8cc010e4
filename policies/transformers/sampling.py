"""Draws the next token of every row at once, each from its own seed; it knows no model and no request.

A row's draw is keyed by (seed, position in the sequence): it depends neither on the batch nor on how many
requests the sequence was cut into, so a sample that is renewed from its own prefix with its own seed goes on as
if it had never been cut.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch

_BLOCK = 64  # positions drawn at a time; making a generator costs as much as thousands of its numbers
_PER_COUNT = 4  # Philox4x64 gives four 64-bit words a count
_KEY_MASK = (1 << 128) - 1


class Uniforms:
    """One stream of uniform numbers in [0, 1) a row, addressed by position (Philox, a counter-based generator)."""

    def __init__(self, rows: int) -> None:
        self._blocks = np.zeros((rows, _BLOCK))
        self._block = np.full(rows, -1, np.int64)
        self._seeds = [0] * rows

    def seed(self, row: int, seed: int) -> None:
        """Give a row its stream."""
        self._seeds[row] = seed & _KEY_MASK
        self._block[row] = -1

    def move(self, source: int, target: int) -> None:
        """Carry a row's stream to another row."""
        self._blocks[target] = self._blocks[source]
        self._block[target] = self._block[source]
        self._seeds[target] = self._seeds[source]

    def at(self, rows: npt.NDArray[np.int64], positions: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
        """The numbers of some rows, each at its position; all of shape (rows,)."""
        wanted = positions // _BLOCK
        stale = self._block[rows] != wanted
        for row, block in zip(rows[stale].tolist(), wanted[stale].tolist(), strict=True):
            counter = block * (_BLOCK // _PER_COUNT)
            generator = np.random.Generator(np.random.Philox(key=self._seeds[row], counter=counter))
            generator.random(out=self._blocks[row])
            self._block[row] = block
        numbers: npt.NDArray[np.float64] = self._blocks[rows, positions % _BLOCK]
        return numbers


def draw(
    logits: torch.Tensor,
    temperature: npt.NDArray[np.float64],
    top_p: npt.NDArray[np.float64],
    uniforms: npt.NDArray[np.float64],
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float64]]:
    """Sample one token a row by inverting its cumulative distribution.

    Args:
        logits: shape (rows, vocabulary).
        temperature: shape (rows,); 0 takes the likeliest token.
        top_p: shape (rows,); the smallest set of tokens with at least this mass is sampled from.
        uniforms: shape (rows,), in [0, 1).

    Returns:
        Token ids, and their log-probabilities under the temperature-1 model in nats; each of shape (rows,).
    """
    logits = logits.float()
    device = logits.device
    logprobs = torch.log_softmax(logits, dim=-1)
    greedy = temperature == 0
    if greedy.all():
        tokens = logits.argmax(dim=-1, keepdim=True)
    else:
        divisor = torch.from_numpy(np.where(greedy, 1.0, temperature)).to(device, torch.float32)
        probabilities = torch.softmax(logits / divisor[:, None], dim=-1)
        narrow = np.flatnonzero((top_p < 1.0) & ~greedy)
        if len(narrow):
            _keep_nucleus(
                probabilities, torch.from_numpy(narrow).to(device), torch.from_numpy(top_p[narrow]).to(device)
            )
        cumulative = probabilities.cumsum(dim=-1, dtype=torch.float64)
        # scaled by the total, so that rounding (or a nucleus) cannot leave the last stretch of [0, 1) to no token
        targets = torch.from_numpy(uniforms).to(device)[:, None] * cumulative[:, -1:]
        tokens = torch.searchsorted(cumulative, targets, right=True).clamp_(max=logits.shape[-1] - 1)
        if greedy.any():
            chosen = torch.from_numpy(greedy).to(device)[:, None]
            tokens = torch.where(chosen, logits.argmax(dim=-1, keepdim=True), tokens)
    picked = logprobs.gather(-1, tokens)
    return tokens[:, 0].cpu().numpy(), picked[:, 0].double().cpu().numpy()


def _keep_nucleus(probabilities: torch.Tensor, rows: torch.Tensor, top_p: torch.Tensor) -> None:
    """Set to zero, in place, what lies outside each row's nucleus (arXiv 1904.09751, section 3.1)."""
    values, order = probabilities[rows].sort(dim=-1, descending=True, stable=True)
    before = values.cumsum(dim=-1, dtype=torch.float64) - values
    kept = values.masked_fill(before >= top_p[:, None], 0.0)
    probabilities[rows] = torch.zeros_like(kept).scatter(-1, order, kept)
