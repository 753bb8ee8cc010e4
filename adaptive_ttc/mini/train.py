"""``python -m adaptive_ttc.mini.train``: make a policy, its PRM and a larger policy from nothing.

The stages run one after the other, each shared by the workers, one thread each. Ctrl-C saves; the
same command goes on from there.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

from adaptive_ttc.cli.interruption import Interruption, interruptible
from adaptive_ttc.mini.settings import PAIRS, PARTS, Pair


def main(arguments: list[str] | None = None) -> int:
    """Parse the command line, run the workers, show their progress; 130 after Ctrl-C, 143 after SIGTERM."""
    parser = argparse.ArgumentParser(prog="python -m adaptive_ttc.mini.train", description=__doc__)
    parser.add_argument("--pair", choices=sorted(PAIRS), default="mini", help="families, mistakes and sizes")
    parser.add_argument("--seed", type=int, help="another seed than the pair's own")
    parser.add_argument("--work", type=Path, help="checkpoints and logs (default runs/PAIR)")
    parser.add_argument("--out", type=Path, help="where the models go (default WORK/models)")
    parser.add_argument("--shrink", type=float, default=1.0, help="share of every stage's steps, for a trial run")
    parser.add_argument(
        "--parts", nargs="+", choices=PARTS, default=["pair", "large"], help="what to make (default: pair large)"
    )
    parser.add_argument("--workers", type=int, default=2, help="processes that train together, one thread each")
    parser.add_argument("--worker", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if not 0 < options.shrink <= 1:
        parser.error("--shrink must be above 0 and at most 1")
    pair = PAIRS[options.pair].shrunk(options.shrink)
    if options.seed is not None:
        pair = replace(pair, seed=options.seed)
    work = options.work or Path("runs") / pair.name
    models = options.out or work / "models"
    work.mkdir(parents=True, exist_ok=True)
    if not _same_run(pair, work / "pair.json"):
        parser.error(f"{work} holds a run with other settings: give another --work or remove it")
    if options.worker is not None:
        return _work_until_stopped(options.worker, options.workers, pair, work, models, options.parts)
    with interruptible() as interruption:
        try:
            code = _run_workers(sys.argv[1:] if arguments is None else arguments, options.workers, work, interruption)
        except KeyboardInterrupt:
            print("Stopped; the same command goes on from the last checkpoint.", file=sys.stderr)
            return interruption.code
    if code == 0:
        from adaptive_ttc.mini.card import write_card

        write_card(pair, work, models)
        print(f"Models and card are in {models}; measure them with python -m adaptive_ttc.mini.evaluate")
    return code


def _same_run(pair: Pair, file: Path) -> bool:
    settings = repr(pair)
    if file.exists():
        return bool(json.loads(file.read_text())["settings"] == settings)
    file.write_text(json.dumps({"settings": settings}))
    return True


def _work_until_stopped(*arguments: Any) -> int:
    """A worker's life; after the first signal, whoever sent it, the checkpoint is written undisturbed."""

    def stop(number: int, frame: object) -> None:
        for one in (signal.SIGINT, signal.SIGTERM):
            signal.signal(one, signal.SIG_IGN)
        raise KeyboardInterrupt

    for one in (signal.SIGINT, signal.SIGTERM):
        signal.signal(one, stop)
    try:
        _work(*arguments)
    except KeyboardInterrupt:
        return 130
    return 0


def _work(number: int, workers: int, pair: Pair, work: Path, models: Path, parts: list[str]) -> None:
    import torch
    import torch.distributed as dist

    from adaptive_ttc.mini.workshop import Workshop

    torch.set_num_threads(1)  # two threads on a busy machine are many times slower for models this small
    if workers > 1:
        meeting = (work / "meeting").absolute().as_uri()
        dist.init_process_group("gloo", init_method=meeting, rank=number, world_size=workers)
    status = work / "status.json"

    def report(stage: str, step: int, steps: int, loss: float) -> None:
        if number:
            return
        state = {"stage": stage, "step": step, "steps": steps, "loss": loss}
        status.with_suffix(".partial").write_text(json.dumps(state))
        status.with_suffix(".partial").replace(status)

    Workshop(pair, work, models, report).run(parts)


def _run_workers(arguments: list[str], workers: int, work: Path, interruption: Interruption) -> int:
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

    (work / "meeting").unlink(missing_ok=True)
    (work / "status.json").unlink(missing_ok=True)
    command = [sys.executable, "-m", "adaptive_ttc.mini.train", *arguments, "--worker"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    runs = [subprocess.Popen([*command, str(number)], env=environment) for number in range(workers)]
    columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.completed}/{task.total}"))
    stage, task = None, None
    try:
        with Progress(*columns, TimeElapsedColumn(), TimeRemainingColumn(), TextColumn("{task.fields[loss]}")) as bars:
            while any(run.poll() is None for run in runs) and not any(run.poll() for run in runs):
                if (work / "status.json").exists():
                    state = json.loads((work / "status.json").read_text())
                    if state["stage"] != stage or task is None:
                        stage = state["stage"]
                        task = bars.add_task(stage, total=state["steps"], loss="")
                    loss = f"loss {state['loss']:.4f}" if state["loss"] else ""
                    bars.update(task, completed=state["step"], loss=loss)
                time.sleep(0.5)
    finally:
        interruption.relax()
        ending = interruption.signal is not None or any(run.poll() for run in runs)
        for run in runs:
            if ending and run.poll() is None:
                run.terminate()
            run.wait()  # those that were interrupted are writing their checkpoint
    return next((run.returncode for run in runs if run.returncode), 0)


if __name__ == "__main__":
    sys.exit(main())
