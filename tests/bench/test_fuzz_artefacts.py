"""A short run of the fuzzer of files: what it makes is accepted or refused by a typed error."""

import pytest

from tests.bench.toys import load


@pytest.mark.parametrize(
    ("kind", "mutations"),
    [
        ("calibration", 6),
        ("recipe", 60),
        ("trace", 60),
        ("traces", 60),
        ("record", 60),
        ("store", 60),
        ("checkpoint", 30),
    ],
)
def test_no_damage_raises_a_foreign_error(monkeypatch, tmp_path, kind, mutations):
    count = load(monkeypatch, "fuzz_artefacts").fuzz(kind, mutations, seed=1, folder=tmp_path)
    assert count.foreign == 0
    assert count.refused + count.accepted == mutations
    assert count.refused > mutations // 4
