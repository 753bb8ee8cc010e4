"""Graded samples of made-up sums: right and wrong ones of every problem, and files of them."""

import json
import random

FEW = {"epochs": 50.0, "max_steps": 4, "tokens": 600, "eval_every": 2, "held_out": 0.3, "device": "cpu"}
"""Settings of a training of a few steps."""


def rows(problems: int = 6, samples: int = 6, seed: int = 0) -> list[dict]:
    """Of two steps each; a wrong sample goes wrong in the first or the second."""
    rng = random.Random(seed)
    found = []
    for number in range(problems):
        a, b = number + 1, 2 * number + 3
        for sample in range(samples):
            wrong = sample % 3  # 0: right
            off = rng.randint(1, 4)
            first, total = a + b + (off if wrong == 1 else 0), a + b + 1 + (off if wrong else 0)
            steps = [f"{a} + {b} = {first}.", f"{first} + 1 = {total}. So it is \\boxed{{{total}}}."]
            found.append(
                {
                    "problem": f"What is {a} + {b} + 1?",
                    "steps": steps,
                    "labels": [wrong != 1, not wrong],
                    "right": not wrong,
                }
            )
    return found


def write(path, some, form: str = "prm"):
    """A file in the form of ``prm`` or ``rollouts``."""
    lines = []
    for row in some:
        if form == "prm":
            lines.append({"prompt": row["problem"], "completions": row["steps"], "labels": row["labels"]})
        else:
            lines.append({"problem": row["problem"], "text": "\n\n".join(row["steps"]), "correct": row["right"]})
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path
