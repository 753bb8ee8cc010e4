"""Rules by name."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import fields, is_dataclass
from typing import Any

from adaptive_ttc.errors import ConfigError
from adaptive_ttc.stopping.adaptive_consistency import AdaptiveConsistency
from adaptive_ttc.stopping.base import StoppingRule
from adaptive_ttc.stopping.bayes_factor import BayesFactor
from adaptive_ttc.stopping.bayesian_stopping import BayesianStopping
from adaptive_ttc.stopping.blend_asc import BlendAsc
from adaptive_ttc.stopping.cite import Cite
from adaptive_ttc.stopping.esc import EarlyStopping
from adaptive_ttc.stopping.least_settled import LeastSettled
from adaptive_ttc.stopping.martingale import MartingaleCertificate
from adaptive_ttc.stopping.pandora_ucb import PandoraUcb
from adaptive_ttc.stopping.pets import Pets
from adaptive_ttc.stopping.uniform import Uniform

_RULES: Mapping[str, Callable[..., StoppingRule]] = {
    "uniform": Uniform,
    "adaptive_consistency": AdaptiveConsistency,
    "esc": EarlyStopping,
    "bayes_factor": BayesFactor,
    "bayesian_stopping": BayesianStopping,
    "martingale": MartingaleCertificate,
    "cite": Cite,
    "blend_asc": BlendAsc,
    "least_settled": LeastSettled,
    "pets": Pets,
    "pandora_ucb": PandoraUcb,
}

RULES: tuple[str, ...] = tuple(_RULES)
"""The names that :func:`make_rule` knows."""


def parse_rule(text: str) -> StoppingRule:
    """The rule that a text such as ``esc`` or ``esc:window=8,most=40`` names; ConfigError as :func:`make_rule`."""
    name, _, rest = text.partition(":")
    options: dict[str, Any] = {}
    for part in rest.split(",") if rest else ():
        option, equals, value = part.partition("=")
        if not equals:
            raise ConfigError(f"rule {text!r}: options are NAME=VALUE, such as adaptive_consistency:level=0.8")
        try:
            options[option.strip()] = json.loads(value)
        except ValueError as error:
            raise ConfigError(f"rule {text!r}: {value!r} is no number, true or false") from error
    return make_rule(name.strip(), **options)


def told(rule: StoppingRule) -> str:
    """Its name and settings, for a reader."""
    names: list[str] = [field.name for field in fields(rule)] if is_dataclass(rule) else []
    values = {name: getattr(rule, name) for name in names}
    settings = [f"{name} {value:g}" for name, value in values.items() if type(value) in (int, float)]
    settings += [name for name, value in values.items() if value is True]
    return f"{rule.name} ({', '.join(settings)})" if settings else rule.name


def make_rule(name: str, **options: Any) -> StoppingRule:
    """The rule of that name, its fields as options. ConfigError: an unknown rule or option, or a value out of range."""
    if name not in _RULES:
        raise ConfigError(f"unknown rule {name!r}; choose one of {', '.join(RULES)}")
    made = _RULES[name]
    known = [field.name for field in fields(made)]  # type: ignore[arg-type]
    if unknown := [option for option in options if option not in known]:
        raise ConfigError(f"rule {name} has no option {', '.join(unknown)}; it has {', '.join(known) or 'none'}")
    return made(**options)
