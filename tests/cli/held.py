"""A command whose engine answers some calls, says ``held``, and never answers nor obeys an abort again."""

import sys
import time

import anyio

from adaptive_ttc.cli import main
from adaptive_ttc.policies.fake import FakePolicy, toy_right_so_far
from adaptive_ttc.prm.fake import FakePRM
from adaptive_ttc.solver import Solver


class Held(FakePolicy):
    """Holds from the call after ``answered`` on."""

    answered = 40

    async def sample(self, request):
        self.answered -= 1
        if self.answered < 0:
            if self.answered == -1:
                print("held", file=sys.stderr, flush=True)
            await anyio.sleep_forever()
        return await super().sample(request)


def run(*words):
    def load(policy, prm=None, *, seed=0, config=None, **settings):
        return Solver(Held.generative(), FakePRM.truthful(toy_right_so_far), seed=seed, config=config)

    Solver.load = load
    code = main(list(words))
    print(f"ended at {time.monotonic()}")
    sys.exit(code)
