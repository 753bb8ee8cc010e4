"""Steps of continuous batching (admit, prefill, decode, hand out what ended), and the thread that takes them."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable

from adaptive_ttc.errors import EngineError
from adaptive_ttc.policies.transformers.runner import ModelRunner
from adaptive_ttc.policies.transformers.scheduler import Job, Scheduler, Start


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
        self._leave(row, may_go_on=False)
        return job

    def step(self) -> None:
        """Let newcomers in, and give every running sample its next token."""
        while (start := self._scheduler.start_next()) is not None:
            self._begin(start)
        running = self._scheduler.running
        if not running:
            return
        result = self._runner.step(len(running))
        ends = []
        for row, token, logprob in zip(result.rows, result.tokens, result.logprobs, strict=True):
            finish = running[row].accept(token, logprob, self._eos)
            if finish is not None:
                ends.append((row, finish))
        # from the last row on, so that a row that moves into a gap is one that goes on
        for row, finish in reversed(ends):
            job = running[row]
            self._leave(row, may_go_on=finish != "eos")
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

    def _leave(self, row: int, *, may_go_on: bool) -> None:
        """Free a row; its keys and values are kept for a continuation, or for others with its prompt."""
        job = self._scheduler.running[row]
        if may_go_on:
            self._runner.store(row, (*job.request.prompt_ids, *job.tokens))
        elif self._scheduler.leads(job):
            self._runner.store(row, job.request.prompt_ids)
        for move in self._scheduler.leave(row):
            self._runner.move(move.source, move.target)

    def _begin(self, start: Start) -> None:
        """Start a row with its prompt's longest prefix that is to be had: another row's, or a stored one."""
        row = len(self._scheduler.running) - 1
        self._runner.begin(row, start.job.request)
        if start.source is None:
            start.job.cached = self._runner.load(row)
        else:
            start.job.cached = self._runner.copy_prompt(start.source, row)


class EngineThread:
    """Steps an engine while there is work, and runs what is posted between two steps, so that no event loop waits.

    Args:
        name: of the thread.
        engine: what it drives; nobody else may from then on.
    """

    def __init__(self, name: str, engine: Engine) -> None:
        self._engine = engine
        self._posted: deque[Callable[[], object]] = deque()
        self._wake = threading.Condition()
        self._closed = False
        # a daemon, so that a process whose user forgot aclose can end
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def post(self, command: Callable[[], object]) -> bool:
        """Have a command run between two steps; False if the thread is closed and never will."""
        with self._wake:
            if self._closed:
                return False
            self._posted.append(command)
            self._wake.notify()
            return True

    def close(self) -> None:
        """Ask the thread to end; what was posted before still runs."""
        with self._wake:
            self._closed = True
            self._wake.notify()

    def join(self) -> None:
        """Wait until the thread has ended."""
        if self._thread is not threading.current_thread():
            self._thread.join()

    def _run(self) -> None:
        engine = self._engine
        while True:
            with self._wake:
                while not (self._posted or self._closed or not engine.idle):
                    self._wake.wait()
                closed = self._closed
                commands = list(self._posted)
                self._posted.clear()
            for command in commands:
                self._guarded(command)
            if closed:
                engine.close()
                return
            self._guarded(engine.step)

    def _guarded(self, action: Callable[[], object]) -> None:
        """A thread that died would leave every caller waiting: whatever is raised, they are told."""
        try:
            action()
        except Exception as error:
            self._engine.fail(error)
