"""One step of continuous batching: admit, prefill, decode, hand out what ended; it knows no thread or event loop."""

from __future__ import annotations

from collections.abc import Sequence

from adaptive_ttc.errors import EngineError
from policies.transformers.runner import ModelRunner, RowStart
from policies.transformers.scheduler import Job, Scheduler


class Engine:
    """Scheduler and model together. Not thread-safe: one thread calls it.

    Args:
        runner: the model and its rows.
        scheduler: the queue.
        eos: tokens that end a solution.
    """

    def __init__(self, runner: ModelRunner, scheduler: Scheduler, eos: frozenset[int]) -> None:
        self._runner = runner
        self._scheduler = scheduler
        self._eos = eos

    @property
    def idle(self) -> bool:
        """Nothing is to be done."""
        return self._scheduler.idle

    def submit(self, job: Job) -> None:
        """Queue a request."""
        self._scheduler.add(job)

    def abort(self, request_id: str) -> None:
        """End a request with the tokens so far; an unknown one is ignored."""
        job = self.drop(request_id)
        if job is not None:
            job.reply(job.sampled("abort"))

    def drop(self, request_id: str) -> Job | None:
        """Forget a request without a reply, and free its row."""
        waiting = self._scheduler.withdraw(request_id)
        if waiting is not None:
            return waiting
        row = self._scheduler.row_of(request_id)
        if row is None:
            return None
        job = self._scheduler.running[row]
        self._leave(row)
        return job

    def step(self) -> None:
        """Let newcomers in, and give every running sample one token."""
        admitted = self._scheduler.admit()
        if admitted:
            self._start(admitted)
        running = self._scheduler.running
        if not running:
            return
        tokens, logprobs = self._runner.decode(len(running))
        news = zip(running, tokens.tolist(), logprobs.tolist(), strict=True)
        ends = [job.accept(token, logprob, self._eos) for job, token, logprob in news]
        # from the last row on, so that the row that moves into a gap is one that goes on
        for row in range(len(ends) - 1, -1, -1):
            finish = ends[row]
            if finish is None:
                continue
            job = running[row]
            if finish != "eos":
                self._runner.store(row, (*job.request.prompt_ids, *job.tokens))
            self._leave(row)
            job.reply(job.sampled(finish))

    def close(self) -> None:
        """End everything with the tokens so far."""
        for job in self._scheduler.clear():
            job.reply(job.sampled("abort"))

    def fail(self, error: Exception) -> None:
        """Tell every request that the model failed; the next ones start afresh."""
        for job in self._scheduler.clear():
            job.reply(EngineError(f"the model failed: {type(error).__name__}: {error}"))

    def release(self) -> None:
        """Let go of the model and its memory; only after the last step."""
        del self._runner

    def _leave(self, row: int) -> None:
        for move in self._scheduler.leave(row):
            self._runner.move(move.source, move.target)

    def _start(self, jobs: Sequence[Job]) -> None:
        """Prefill each distinct prompt once; the other samples of the same prompt copy its row."""
        groups: dict[tuple[int, ...], list[Job]] = {}
        for job in jobs:
            groups.setdefault(job.request.prompt_ids, []).append(job)
        starts = {prompt: [self._row_start(job) for job in group] for prompt, group in groups.items()}
        prompts = sorted(groups, key=lambda prompt: starts[prompt][0].missing, reverse=True)
        row = first = self._scheduler.start([groups[prompt][0] for prompt in prompts])
        self._runner.begin(first, [starts[prompt][0] for prompt in prompts])
        for row, prompt in enumerate(prompts, first):
            leader, *followers = groups[prompt]
            leader.cached = len(starts[prompt][0].stored)
            if starts[prompt][0].missing:
                self._runner.store(row, prompt)
            if followers:
                for job in followers:
                    job.cached = len(prompt) - 1
                self._runner.follow(row, self._scheduler.start(followers), starts[prompt][1:])

    def _row_start(self, job: Job) -> RowStart:
        request = job.request
        return RowStart(
            prompt=request.prompt_ids,
            stored=self._runner.find(request.prompt_ids),
            seed=request.seed,
            temperature=request.temperature,
            top_p=request.top_p,
        )
