"""The name under which a model takes its keys and values."""

import functools

import pytest

from adaptive_ttc.prm.prefix_cache import cache_argument


class Newer:
    def forward(self, input_ids=None, cache=None, **more):
        """As transformers names it since 5.24."""


class Older:
    def forward(self, input_ids=None, past_key_values=None, **more):
        """As it did before."""


class Wrapped:
    @functools.wraps(Newer.forward)
    def forward(self, *given, **named):
        """As a decorator that renames deprecated arguments leaves it."""


@pytest.mark.parametrize(("model", "name"), [(Newer, "cache"), (Older, "past_key_values"), (Wrapped, "cache")])
def test_keys_and_values_go_in_under_the_name_that_the_model_has_for_them(model, name):
    assert cache_argument(model()) == name
