"""The tiny policy that trainings begin from."""

import pytest

from tests.prm import tiny


@pytest.fixture(scope="module")
def policy(tmp_path_factory):
    folder = tmp_path_factory.mktemp("policy")
    tiny.save("tiny", folder)
    return folder
