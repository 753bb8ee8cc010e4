"""The order of the training stages, and what each hands to the next; it knows no command line."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import torch
from transformers import LlamaForCausalLM

from adaptive_ttc.mini.data import (
    Batch,
    Render,
    Segment,
    attempt,
    batches,
    drawn,
    drill,
    judged,
    mixture,
    revision,
    verdict,
)
from adaptive_ttc.mini.implicit import implicit_ratios
from adaptive_ttc.mini.minimath import right_tokens_end
from adaptive_ttc.mini.models import fresh, save, widened, with_verifier
from adaptive_ttc.mini.settings import PARTS, Pair, Training
from adaptive_ttc.mini.stages import Loss, Report, VerifierLoss, rank, train, world, writer_loss
from adaptive_ttc.mini.tokenizer import REVISE, train_tokenizer
from adaptive_ttc.training.logistic import fit_logistic

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast


class Workshop:
    """Trains one pair inside a working folder; every stage resumes from its own checkpoint.

    Where ``torch.distributed`` is initialised, its processes share every stage.

    Args:
        pair: what to train.
        work: working folder: checkpoints, logs, the policy's own samples.
        models: where the finished models go: ``policy``, ``prm``, ``large`` and ``verifier``.
        report: called with (stage, step, steps, loss).
    """

    def __init__(self, pair: Pair, work: Path, models: Path, report: Callable[[str, int, int, float], None]) -> None:
        self.pair, self.work, self.models, self._report = pair, work, models, report
        self.tokenizer: PreTrainedTokenizerFast = train_tokenizer()

    def run(self, parts: Sequence[str] = PARTS) -> None:
        """Make the parts asked for, from where they stand; each needs the ones before ``verifier``."""
        pair, source = self.pair, self.pair.source
        drills, solutions, verdicts = drill(), attempt(source, {}), verdict(source, {})
        formats = mixture([(0.35, drills), (0.35, solutions), (0.3, verdicts)])
        base = self._write("base", fresh(pair.small, self.tokenizer, pair.seed), formats, pair.base)
        revisions = revision(source, source.slips, 0.0)
        formats = mixture([(0.2, drills), (0.25, solutions), (0.15, verdicts), (0.4, revisions)])
        clean = self._write("revised", copy.deepcopy(base), formats, pair.revised)
        revisions = revision(source, source.slips, pair.care)
        formats = mixture([(0.7, attempt(source, source.slips)), (0.3, revisions)])
        policy = self._write("noisy", copy.deepcopy(clean), formats, pair.noisy)
        self._save(policy, "policy", revision_prompt=REVISE)
        samples = self._own_samples(policy)
        if rank() == 0:
            self._implicit(clean, policy, samples[:2048])
        if "large" in parts:
            self._large(base)
        if "verifier" in parts:
            self._verifier(base, samples)

    def _verifier(self, base: LlamaForCausalLM, samples: list[dict[str, str | int]]) -> None:
        pair = self.pair
        plus, minus = (self.tokenizer.get_vocab()[sign] for sign in "+-")
        stream = partial(self._stream, self._verdicts(samples), True, pair.verifier.tokens)
        model = with_verifier(base, pair.verifier_layers, pair.seed)
        model = self._train("verifier", model, VerifierLoss(plus, minus), stream, pair.verifier)
        self._save(model, "verifier", adaptive_ttc_prm="rlhflow")

    def _large(self, base: LlamaForCausalLM) -> None:
        pair, source = self.pair, self.pair.source
        formats = mixture([(0.35, drill()), (0.65, attempt(source, {}))])
        large = self._write("large_base", widened(base, pair.large_layers, pair.seed), formats, pair.large_base)
        formats = attempt(source, {kind: rate * pair.large_care for kind, rate in source.slips.items()})
        large = self._write("large_noisy", large, formats, pair.large_noisy)
        self._save(large, "large")

    def _save(self, model: LlamaForCausalLM, name: str, **extra: str) -> None:
        if rank() == 0:
            save(model, self.tokenizer, self.models / name, **extra)

    def _implicit(self, clean: LlamaForCausalLM, policy: LlamaForCausalLM, samples: list[dict[str, str | int]]) -> None:
        """The implicit PRM: what the clean policy makes of a solution against what the noisy one does."""
        ratios, right = implicit_ratios(clean, policy, self.tokenizer, samples)
        scale, offset = fit_logistic(ratios, right)
        folder = self.models / "prm"
        save(clean, self.tokenizer, folder / "clean")
        save(policy, self.tokenizer, folder / "noisy")
        config = {"adaptive_ttc_prm": "implicit", "tuned": "clean", "reference": "noisy", "beta": 1.0}
        (folder / "config.json").write_text(json.dumps({**config, "scale": scale, "offset": offset}, indent=1) + "\n")

    def _write(self, stage: str, model: LlamaForCausalLM, render: Render, settings: Training) -> LlamaForCausalLM:
        group = drawn(self.pair.source, render, f"{self.pair.seed}/{stage}")
        return self._train(stage, model, writer_loss, partial(self._stream, group, False, settings.tokens), settings)

    def _train(
        self,
        stage: str,
        model: LlamaForCausalLM,
        loss: Loss,
        stream: Callable[[int], Iterator[tuple[int, Batch]]],
        settings: Training,
    ) -> LlamaForCausalLM:
        report: Report = partial(self._report, stage)
        return train(model, loss, stream, settings, self.work / stage, report)

    def _stream(
        self, group: Callable[[int], list[list[Segment]]], verifier: bool, tokens: int, start: int
    ) -> Iterator[tuple[int, Batch]]:
        start, stride = start + rank(), world()
        return batches(self.tokenizer, group, verifier=verifier, tokens=tokens, start=start, stride=stride)

    def _verdicts(self, samples: list[dict[str, str | int]]) -> Callable[[int], list[list[Segment]]]:
        """Groups of half synthetic mistakes and half the policy's own, with the length of the right part."""
        source = self.pair.source
        synthetic = drawn(source, verdict(source, source.slips), f"{self.pair.seed}/verifier")

        def group(number: int) -> list[list[Segment]]:
            own = [samples[(number * 256 + i) % len(samples)] for i in range(256)]
            texts = [judged(str(s["question"]), str(s["solution"]), int(s["right"])) for s in own]
            return synthetic(number)[:256] + texts

        return group

    def _own_samples(self, policy: LlamaForCausalLM) -> list[dict[str, str | int]]:
        """This process's share of the policy's own solutions, at temperature 0.9, in batches that resume."""
        file = self.work / "samples" / f"samples-{rank()}-of-{world()}.jsonl"
        file.parent.mkdir(parents=True, exist_ok=True)
        total, size = self.pair.own_samples // world(), 256
        done = len(file.read_text().splitlines()) // size * size if file.exists() else 0
        if file.exists():
            kept = file.read_text().splitlines(keepends=True)[:done]
            file.write_text("".join(kept))
        while done < total:
            name = f"{self.pair.seed}/samples/{rank()}/{done}"
            exercises = [exercise for _, _, exercise in islice(self.pair.source.exercises("train", name), size)]
            solutions = generate(
                policy, self.tokenizer, [e.question for e in exercises], seed=self.pair.seed + done + rank()
            )
            with file.open("a") as lines:
                for exercise, solution in zip(exercises, solutions, strict=True):
                    right = right_tokens_end(exercise, solution)
                    row = {"question": exercise.question, "solution": solution, "right": right}
                    lines.write(json.dumps(row) + "\n")
            done += size
            self._report("samples", done, total, 0.0)
        return [json.loads(line) for line in file.read_text().splitlines()]


def generate(
    model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, questions: list[str], *, seed: int
) -> list[str]:
    """One solution a question at temperature 0.9, up to 220 tokens, by the stock ``generate``."""
    prompts = [
        tokenizer.apply_chat_template([{"role": "user", "content": q}], tokenize=False, add_generation_prompt=True)
        for q in questions
    ]
    inputs = tokenizer(prompts, padding=True, padding_side="left", add_special_tokens=False, return_tensors="pt")
    torch.manual_seed(seed)
    with torch.inference_mode():
        out = cast("Any", model).generate(
            input_ids=inputs["input_ids"],
            attention_mask=inputs["attention_mask"],
            do_sample=True,
            temperature=0.9,
            top_k=0,
            max_new_tokens=220,
            pad_token_id=tokenizer.pad_token_id,
        )
    return tokenizer.batch_decode(out[:, inputs["input_ids"].shape[1] :], skip_special_tokens=True)
