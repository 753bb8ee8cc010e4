"""What is read of a model's folder is what the loaded model says."""

import subprocess
import sys

import pytest

from adaptive_ttc.errors import ConfigError
from adaptive_ttc.policies.folder import eos_tokens, read_facts
from adaptive_ttc.policies.transformers import TransformersPolicy
from tests.policies.tiny import ENDS, byte_tokenizer, llama


@pytest.mark.parametrize("tied", [False, True])
async def test_it_agrees_with_the_loaded_model(tmp_path, tied):
    llama(tie_word_embeddings=tied).save_pretrained(tmp_path)
    byte_tokenizer().save_pretrained(tmp_path)
    facts = read_facts(tmp_path)
    policy = TransformersPolicy.from_pretrained(tmp_path)
    assert facts.parameters == policy.parameters
    assert facts.vocab_size == policy._facts.vocab_size
    assert facts.eos == frozenset(range(len(ENDS)))
    assert facts.revision_prompt is None
    await policy.aclose()


def test_a_config_without_generation_config_names_the_end_tokens(tmp_path):
    llama(eos_token_id=3).save_pretrained(tmp_path)
    byte_tokenizer().save_pretrained(tmp_path)
    (tmp_path / "generation_config.json").unlink()
    assert read_facts(tmp_path).eos == {3}
    assert read_facts(tmp_path, ()).eos == frozenset()


def test_nothing_that_ends_a_solution_is_refused():
    tokenizer = byte_tokenizer()
    assert eos_tokens(None, tokenizer) == {0}
    tokenizer.eos_token = None
    with pytest.raises(ConfigError, match="eos_token_ids"):
        eos_tokens(None, tokenizer)


def test_a_folder_without_a_model_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="readable"):
        read_facts(tmp_path)


def test_without_vllm_its_policy_names_the_remedy():
    script = "import sys; sys.modules['vllm'] = None; import adaptive_ttc.policies.vllm"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    last = done.stderr.strip().splitlines()[-1]
    assert "needs vLLM, which is not installed: " in last
    assert "pip install" in last
    assert "During handling" not in done.stderr
