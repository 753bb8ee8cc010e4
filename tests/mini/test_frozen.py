"""The shipped calibration belongs to these weights and these problems; whoever changes them must calibrate anew."""

import json

from adaptive_ttc.mini import frozen


def test_generator_and_weights_are_those_that_the_calibration_was_made_for() -> None:
    assert frozen.changed() == [], (
        "the generator or the models changed: run `python -m adaptive_ttc.mini.frozen --write`, and make the "
        "calibration, the model card and the results anew"
    )


def test_a_changed_digest_is_told(tmp_path, monkeypatch) -> None:
    known = json.loads(frozen.DIGESTS.read_text(encoding="utf-8"))
    known["policy/model.safetensors"] = "0" * 64
    del known["minimath-500:mini"]
    edited = tmp_path / "frozen.json"
    edited.write_text(json.dumps(known), encoding="utf-8")
    monkeypatch.setattr(frozen, "DIGESTS", edited)
    assert frozen.changed() == ["minimath-500:mini", "policy/model.safetensors"]
    assert frozen.main([]) == 1
