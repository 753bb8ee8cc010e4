"""A transformer as a PRM uses it: hidden states, the head apart; and how one is loaded. It knows no score.

torch and transformers are imported when a model is loaded or run, never with this module.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from adaptive_ttc.errors import ConfigError, EngineError
from adaptive_ttc.kv.argument import cache_argument
from adaptive_ttc.prm.checkpoint import read_config
from adaptive_ttc.prm.heads import OutputHead

if TYPE_CHECKING:
    import torch
    from transformers import DynamicCache

    from adaptive_ttc.kv.pool import CacheShape

DTYPES = ("float32", "bfloat16", "float16")


class Body:
    """A transformer without whatever head stands on it.

    Args:
        decoder: a Hugging Face decoder in evaluation mode: token ids in, last hidden states out.

    Attributes:
        parameters: of the transformer, without the embedding table (a look-up costs no multiplication).
        max_context: tokens that it can read, or None where its config does not say.
        window: tokens that a layer sees, where that is fewer than all; the same in all layers, or None.
        varied: what makes keys and values depend on later tokens or differ between layers, or "".
    """

    def __init__(self, decoder: Any) -> None:
        self._decoder = decoder
        self._cache_name = cache_argument(decoder)
        embedding = decoder.get_input_embeddings().weight
        self.parameters = sum(p.numel() for p in decoder.parameters() if p is not embedding)
        self.vocabulary: int = embedding.shape[0]
        self.device: torch.device = embedding.device
        self.dtype: torch.dtype = next(decoder.parameters()).dtype
        config = decoder.config.get_text_config()
        self.max_context: int | None = getattr(config, "max_position_embeddings", None)
        kinds = set(getattr(config, "layer_types", None) or ())
        sliding = getattr(config, "sliding_window", None) if "full_attention" not in kinds else None
        self.window: int | None = sliding
        rope = (getattr(config, "rope_parameters", None) or {}).get("rope_type")
        self.varied = "layers of different kinds" if len(kinds) > 1 else ""
        if rope in ("dynamic", "longrope"):
            self.varied = f"positions of the kind {rope!r}, which turn with a text's length"

    def run(self, ids: torch.Tensor, cache: DynamicCache | None = None, **arguments: Any) -> torch.Tensor:
        """Last hidden states, shape (rows, tokens, hidden size), of ids of shape (rows, tokens)."""
        import torch

        with torch.inference_mode():
            arguments = {name: _moved(value, self.device) for name, value in arguments.items()}
            arguments[self._cache_name] = cache
            states: torch.Tensor = self._decoder(
                input_ids=ids.to(self.device), use_cache=cache is not None, **arguments
            ).last_hidden_state
        return states

    def cache_shape(self) -> CacheShape:
        """What one token's keys and values look like.

        Raises:
            ConfigError: it keeps something else than one key and value a token and layer, all alike.
        """
        import torch
        from transformers import DynamicCache
        from transformers.cache_utils import DynamicLayer

        from adaptive_ttc.kv.pool import CacheShape

        cache = DynamicCache()
        if not self.varied:
            self.run(torch.zeros((1, 1), dtype=torch.long), cache=cache)
        if not cache.layers or any(type(layer) is not DynamicLayer for layer in cache.layers):
            raise ConfigError(_NO_CACHE.format(self.varied or "something else than keys and values"))
        layers: Sequence[Any] = cache.layers
        shapes = {(layer.keys.shape, layer.values.shape) for layer in layers}
        if len(shapes) > 1:
            raise ConfigError(_NO_CACHE.format("keys of different shapes"))
        (keys, values), *_ = shapes
        return CacheShape(layers=len(cache.layers), heads=keys[1], key_dim=keys[3], value_dim=values[3])

    def release(self) -> None:
        """Let go of the weights."""
        self._decoder = None


class CausalBody(Body):
    """The transformer of a causal LM, and its output head apart.

    Args:
        model: a Hugging Face causal LM in evaluation mode.

    Raises:
        ConfigError: its logits are not just the head's product with the last hidden states.
    """

    def __init__(self, model: Any) -> None:
        super().__init__(model.get_decoder())
        head = model.get_output_embeddings()
        self._check_head(model, head)
        self.head = OutputHead.of(head)

    def release(self) -> None:
        """Let go of the weights."""
        super().release()
        del self.head

    def _check_head(self, model: Any, head: Any) -> None:
        """Compare with the model's own logits: a cap, scale or projection behind the head would change scores."""
        import torch

        if head is None or getattr(model.config.get_text_config(), "final_logit_softcapping", None):
            raise ConfigError(_ODD_HEAD.format(type(model).__name__))
        ids = torch.arange(8, device=self.device)[None] % self.vocabulary
        with torch.inference_mode():
            theirs = model(input_ids=ids, use_cache=False).logits.float()
            ours = head(self.run(ids)).float()
        tolerance = 1e-3 if head.weight.dtype == torch.float32 else 2e-2
        if ours.shape != theirs.shape or not (ours - theirs).abs().max() <= tolerance * theirs.abs().max():
            raise ConfigError(_ODD_HEAD.format(type(model).__name__))


_NO_CACHE = "this model has {}, so no keys of prefixes can be stored: pass prefix_cache_bytes=0 to read it without"

_ODD_HEAD = (
    "{}: the logits are not the output head's product with the last hidden states (a cap, a scale, a projection, "
    "or not a number); this reader cannot read such a model, register one that can"
)


def _moved(value: Any, device: torch.device) -> Any:
    """A tensor on the device; anything else as it is."""
    import torch

    return value.to(device) if isinstance(value, torch.Tensor) else value


@contextmanager
def without_progress_bars() -> Iterator[None]:
    """Load without transformers' progress bars, which belong to programs and not to a library."""
    from transformers.utils import logging

    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()


def load_causal(folder: Path, *, device: str, dtype: str, threads: int | None) -> tuple[Any, Any]:
    """Load a causal LM and its tokenizer from a folder of safetensors.

    Args:
        folder: a Hugging Face model folder.
        device: where it runs, as torch names it.
        dtype: one of ``DTYPES``.
        threads: set torch's threads for the whole process; None leaves them alone. With fewer than
            about 20M parameters on a CPU, 1 is fastest.

    Returns:
        The model in evaluation mode, and the tokenizer.

    Raises:
        ConfigError: an unknown dtype, unreadable files, or weights that lack a part of the model.
    """
    from transformers import AutoModelForCausalLM

    set_threads(threads)
    check_device(device)
    return _load(AutoModelForCausalLM, folder, device, dtype), load_tokenizer(folder)


def load_backbone(folder: Path, *, device: str, dtype: str) -> Any:
    """Load the transformer alone, by the stock class of the config's ``model_type``; no code of the folder is run.

    The arguments and errors are those of :func:`load_causal`; weights of heads are left out.
    """
    from transformers import CONFIG_MAPPING, AutoModel
    from transformers.utils import logging

    entries = {key: value for key, value in read_config(folder).items() if key not in ("auto_map", "architectures")}
    kind = str(entries.get("model_type"))
    if kind not in CONFIG_MAPPING:
        raise ConfigError(f"{folder}/config.json says model_type={kind!r}, which this version of transformers lacks")
    shown = logging.get_verbosity()
    logging.set_verbosity_error()  # it would report the head's weights as superfluous
    try:
        return _load(AutoModel, folder, device, dtype, config=CONFIG_MAPPING[kind].from_dict(entries))
    finally:
        logging.set_verbosity(shown)


def load_tokenizer(folder: Path) -> Any:
    """Load a folder's tokenizer.

    Raises:
        ConfigError: it has none that can be read.
    """
    from transformers import AutoTokenizer

    try:
        return AutoTokenizer.from_pretrained(folder)
    except (OSError, ValueError) as error:
        raise ConfigError(f"{folder} has no loadable tokenizer: {error}") from error


def set_threads(threads: int | None) -> None:
    """Set torch's threads for the whole process; None leaves them alone.

    Raises:
        ConfigError: fewer than 1.
    """
    import torch

    if threads is not None:
        if threads < 1:
            raise ConfigError(f"threads={threads} must be at least 1, or None")
        torch.set_num_threads(threads)


def check_device(device: str) -> None:
    """Refuse a device that torch does not have here, before anything is read for it.

    Raises:
        ConfigError: it cannot be used.
    """
    import torch

    try:
        torch.empty(0, device=device)
    except (AssertionError, RuntimeError) as error:  # torch asserts that it was built for the device
        raise ConfigError(f"device={device!r} cannot be used here ({error}); take another, such as 'cpu'") from error


def _load(loader: Any, folder: Path, device: str, dtype: str, **arguments: Any) -> Any:
    import torch

    if dtype not in DTYPES:
        raise ConfigError(f"dtype={dtype!r} is not one of {', '.join(DTYPES)}")
    try:
        with without_progress_bars():
            model, info = loader.from_pretrained(
                folder, dtype=getattr(torch, dtype), use_safetensors=True, output_loading_info=True, **arguments
            )
    except (OSError, ValueError) as error:
        raise ConfigError(f"{folder} is no loadable language model: {error}") from error
    if info["missing_keys"]:
        raise ConfigError(f"{folder} lacks the weights {sorted(info['missing_keys'])[:4]}; get the whole model")
    return model.eval().to(device)


def checked(values: list[float], name: str) -> list[float]:
    """The values, if all are numbers.

    Raises:
        EngineError: the model put out something that is not a number.
    """
    if not all(map(math.isfinite, values)):
        raise EngineError(f"{name} put out values that are not numbers; try dtype='float32' or 'bfloat16'")
    return values
