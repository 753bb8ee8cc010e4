"""Which policies of a cascade are gone for all problems of a run: noticed once, and said once."""

from __future__ import annotations

from adaptive_ttc.errors import OutageWarning, warn
from adaptive_ttc.policy import second_policy
from adaptive_ttc.run.request import Resources


class Outages:
    """Looks at the health of both policies of a run; of one that has no second there is nothing to say.

    What a policy fails with for good on one problem leaves it to others, unless that happens again and again; a
    problem ``alone`` has no others.
    """

    def __init__(self, resources: Resources, *, alone: bool) -> None:
        two = second_policy(resources.policy) is not None
        self._health = {"first": resources.health, "second": resources.second_health} if two else {}
        self._line = resources.line
        self._gone: set[str] = set()
        for one in self._health.values():
            one.policy.most_incidents = 1 if alone else one.policy.most_incidents

    def news(self) -> bool:
        """Whether one has gone since the last call; OutageWarning where the other one is there."""
        gone = [name for name, one in self._health.items() if one.policy.given_up and name not in self._gone]
        self._gone.update(gone)
        if len(self._gone) < len(self._health):
            for name in gone:
                why, units = self._health[name].policy.given_up, self._health[name].losses.units
                lost = f"; {units:,} units were charged for calls that failed" * bool(units)
                said = f"the {name} policy is gone, and the run goes on without it: {why}"
                warn(said + lost, OutageWarning, self._line)
        return bool(gone)
