"""The implicit PRM against the formula, computed a token at a time."""

from __future__ import annotations

import asyncio
import json
import math
from pathlib import Path

import pytest
import torch

from adaptive_ttc.errors import ConfigError
from adaptive_ttc.prm import ScoreRequest, load_prm
from adaptive_ttc.prm.families import implicit as implicit_family
from adaptive_ttc.prm.families.implicit import ImplicitConfig
from tests.prm.tiny import IMPLICIT as CONFIG
from tests.prm.tiny import REQUESTS, model_of, save, tokenizer_of
from tests.prm.tiny import implicit as prm_of


def reference(family: str, request: ScoreRequest) -> list[float]:
    tokenizer = tokenizer_of(family)
    chat = [{"role": "user", "content": request.question}]
    prompt = tokenizer.apply_chat_template(chat, tokenize=False, add_generation_prompt=True, date_string="26 Jul 2024")
    ids = tokenizer.encode(prompt, add_special_tokens=False)
    q, scores = 0.0, []
    for k, step in enumerate(request.steps):
        pieces = ["\n\n", step] if k else [step]
        for token in [token for piece in pieces for token in tokenizer.encode(piece, add_special_tokens=False)]:
            with torch.no_grad():
                ours, theirs = (model_of(family, s)(torch.tensor([ids])).logits[0, -1].log_softmax(-1) for s in (0, 1))
            q += CONFIG.beta * (ours[token] - theirs[token]).item()
            ids.append(token)
        scores.append(1 / (1 + math.exp(-(CONFIG.scale * q + CONFIG.offset))))
    return scores


@pytest.mark.parametrize("family", ["llama3", "tiny"])
async def test_scores_are_the_formulas(family: str, monkeypatch: pytest.MonkeyPatch) -> None:
    # So few logits at once that a batch is computed in many pieces.
    monkeypatch.setattr(implicit_family, "LOGITS_AT_ONCE", 5000)
    prm = prm_of(family)
    got = await asyncio.gather(*map(prm.score, REQUESTS))
    for request, scored in zip(REQUESTS, got, strict=True):
        assert list(scored.scores) == pytest.approx(reference(family, request), abs=1e-5)
    assert max(max(scored.scores) - min(scored.scores) for scored in got) > 0.05
    await prm.aclose()


async def test_alone_or_together() -> None:
    prm = prm_of("tiny", max_batch=1)
    alone = [(await prm.score(request)).scores for request in REQUESTS]
    together = prm_of("tiny")
    for scored, scores in zip(await asyncio.gather(*map(together.score, REQUESTS)), alone, strict=True):
        assert scored.scores == pytest.approx(scores, abs=1e-5)
    assert together.statistics().batches == 1
    await prm.aclose()
    await together.aclose()


def test_cost_is_that_of_both_models_over_one_text() -> None:
    prm = prm_of("tiny")
    layers = sum(p.numel() for p in model_of("tiny").model.layers.parameters()) + 32
    assert prm.parameters == 2 * (layers + 32 * len(tokenizer_of("tiny")))
    request = ScoreRequest("1 + 1", ("1 + 1 = 2.", "2"))
    # A byte is a token here: two control tokens of the prompt and its end, the question, steps, a blank line.
    assert prm.count_tokens(request) == len("<>.1 + 1") - 1 + len("..1 + 1 = 2..2") - 1
    assert prm.max_context == 1024


async def test_loaded_by_its_config(tmp_path: Path) -> None:
    save("tiny", tmp_path / "clean", seed=0)
    save("tiny", tmp_path / "noisy", seed=1)
    entries = {"tuned": "clean", "reference": "noisy", "beta": 0.02, "scale": 2.0, "offset": 0.5}
    (tmp_path / "config.json").write_text(json.dumps({"adaptive_ttc_prm": "implicit", **entries}))
    prm = load_prm(tmp_path)
    scores = (await prm.score(REQUESTS[0])).scores
    assert list(scores) == pytest.approx(reference("tiny", REQUESTS[0]), abs=1e-5)
    await prm.aclose()

    save("tiny", tmp_path / "noisy", seed=2)
    other = load_prm(tmp_path, reader="implicit")
    assert other.fingerprint != prm.fingerprint, "the reference's weights count too"
    save("llama3", tmp_path / "noisy")
    with pytest.raises(ConfigError, match="share one"):
        load_prm(tmp_path)


def test_config_is_checked() -> None:
    good = {"adaptive_ttc_prm": "implicit", "tuned": "a", "reference": "b"}
    assert ImplicitConfig.of(good) == ImplicitConfig(tuned="a", reference="b")
    for bad in (
        {"betta": 1.0},
        {"beta": 0.0},
        {"scale": -1.0},
        {"tuned": "../other"},
        {"reference": ""},
        {"tuned": ".."},
    ):
        with pytest.raises(ConfigError):
            ImplicitConfig.of(good | bad)
    with pytest.raises(ConfigError, match="reference"):
        ImplicitConfig.of({"tuned": "a"})
