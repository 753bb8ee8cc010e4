"""Chooses how a PRM is loaded: by what its config says, else by its name; then by the engine."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING, Any

from adaptive_ttc.answers.spaces.base import AnswerSpace
from adaptive_ttc.errors import ConfigError, see
from adaptive_ttc.loading import REPLAY, load_recorded_prm, prm_engine
from adaptive_ttc.prm import checkpoint
from adaptive_ttc.prm.base import RewardModel
from adaptive_ttc.prm.checkpoint import is_hub_name, read_config
from adaptive_ttc.prm.format import Parts

if TYPE_CHECKING:
    from adaptive_ttc.prm.local import BatchedPRM

CONFIG_KEY = "adaptive_ttc_prm"  # the entry of config.json that names the reader


@dataclass(frozen=True, slots=True, kw_only=True)
class PRMReader:
    """A family of PRMs and how one of it is loaded."""

    name: str  # what ``config.json`` says under ``adaptive_ttc_prm``
    load: Callable[..., RewardModel]  # called with the folder or Hub name and the caller's keyword arguments
    names: str = "(?!)"  # regular expression searched, regardless of case, in the Hub name or the folder's name
    # patterns, as of file names, of entries of ``architectures`` in config.json that only this family has
    architectures: tuple[str, ...] = ()
    runs_model: bool = True  # whether a model has to be named

    def __post_init__(self) -> None:
        if not self.name:
            raise ConfigError("a PRM reader needs a name")
        try:
            re.compile(self.names)
        except re.error as error:
            raise ConfigError(f"names={self.names!r} is no regular expression: {error}") from error


_READERS: dict[str, PRMReader] = {}


def register_prm(reader: PRMReader) -> None:
    """Register a family for :func:`load_prm`; ConfigError if another reader has that name."""
    if _READERS.setdefault(reader.name, reader) != reader:
        raise ConfigError(f"there is a PRM reader named {reader.name!r} already; choose another name")


def known_prms() -> tuple[str, ...]:
    """Names of the registered readers, sorted."""
    return tuple(sorted(_READERS))


def spelled(path_or_name: str | Path) -> tuple[PRMReader | None, str | Path]:
    """The reader in ``READER:MODEL``, or ``READER`` for one that runs no model, and what follows it; a path that exists
    is none of these.
    """
    name, _, rest = str(path_or_name).partition(":")
    found = _READERS.get(name)
    if found is None or Path(path_or_name).exists():
        return None, path_or_name
    return found, rest


def reader_named(name: str | None) -> PRMReader | None:
    """The registered reader of a name; None where there is none."""
    return None if name is None else _READERS.get(name)


def chosen_reader(path_or_name: str | Path, reader: str | None = None) -> tuple[str | None, str | Path]:
    """The reader's name that is given or stands before the model and a colon, ``replay`` for a file; None where the
    model itself decides. And the model.
    """
    if reader is None:
        named, path_or_name = spelled(path_or_name)
        reader = None if named is None else named.name
    return (REPLAY if reader is None and Path(path_or_name).is_file() else reader), path_or_name


def recognised(path_or_name: str | Path) -> str | None:
    """The reader's name of what is a PRM by its spelling, name or local config; the Hub is not asked. Else None."""
    named, _ = spelled(path_or_name)
    if named is not None:
        return named.name
    if is_hub_name(path_or_name):
        return _by_name(str(path_or_name))
    return _named_reader(path_or_name) if (Path(path_or_name) / "config.json").is_file() else None


def load_prm(
    path_or_name: str | Path, *, reader: str | None = None, answers: AnswerSpace | None = None, **settings: Any
) -> RewardModel:
    """Load a PRM with the reader that fits it.

    Args:
        path_or_name: a model folder, ``owner/name`` on the Hub, or a file that scores were recorded in; with the
            reader's name and a colon before it, ``reader`` is set; ``confidence`` alone runs no model.
        reader: name of the reader; by default ``replay`` for a file, what a local folder's config.json says under
            ``adaptive_ttc_prm``, else the first whose pattern is found in the name, else what the config.json on the
            Hub says, else the one whose architecture config.json names.
        answers: what answers are, for a file of traces; models score any text.
        **settings: passed to the reader: ``engine``, ``device``, ``dtype``, ``max_batch``, ...

    Raises:
        ConfigError: no reader fits, or the model cannot be loaded.
    """
    reader, path_or_name = chosen_reader(path_or_name, reader)
    if reader == REPLAY:
        return load_recorded_prm(path_or_name, **settings, **({} if answers is None else {"answers": answers}))
    known = reader_named(reader)
    if known is not None and known.runs_model and not path_or_name:
        raise ConfigError(f"{reader} reads a model: name it, such as {reader}:owner/name")
    name = reader or _named_reader(path_or_name)
    if name not in _READERS:
        claim = f"names the PRM reader {name!r}, which is not known" if name else "is no PRM that is known by its name"
        raise ConfigError(
            f"{path_or_name} {claim}; known are {', '.join(known_prms())}. A language "
            f"model as judge is judge:{path_or_name}; else pass reader=..., set {CONFIG_KEY!r} in its config.json, or "
            "register a reader of your own: "
            f"adaptive_ttc.prm.register_prm(PRMReader(name=..., load=..., names=...)) {see('prms.md#families')}"
        )
    return _READERS[name].load(path_or_name, **settings)


def _named_reader(path_or_name: str | Path) -> str | None:
    """The reader's name in the order that :func:`load_prm` gives; a Hub model's config is only read where needed."""
    on_hub = is_hub_name(path_or_name)
    stated = None if on_hub else read_config(path_or_name).get(CONFIG_KEY)
    if stated is not None:
        return str(stated)
    known = _by_name(str(path_or_name) if on_hub else Path(path_or_name).resolve().name)
    if known is not None:
        return known
    config = read_config(path_or_name)
    stated = [str(one) for one in config.get("architectures") or ()]
    fitting = (
        name
        for name, reader in _READERS.items()
        if any(fnmatchcase(one, pattern) for one in stated for pattern in reader.architectures)
    )
    return str(config.get(CONFIG_KEY) or "") or next(fitting, None)


def _by_name(name: str) -> str | None:
    """The first reader whose pattern is found in a Hub name or a folder's name."""
    return next((one.name for one in _READERS.values() if re.search(one.names, name, re.IGNORECASE)), None)


@dataclass(frozen=True, slots=True, kw_only=True)
class Family:
    """What differs between families when they are loaded."""

    format: str  # version of what the reader makes of a request; part of every fingerprint
    parts: Callable[[Path, str, str], Parts]  # reads tokenizer and heads from a folder, for a device and a dtype

    def load(self, path_or_hub: str | Path, *, engine: str = "transformers", **settings: Any) -> RewardModel:
        """Load one from a Hugging Face model folder, or ``owner/name``; ConfigError where that fails.

        ``transformers`` runs it in this process's torch, with :class:`~adaptive_ttc.prm.local.LocalSettings`; other
        engines are entry points of the group ``adaptive_ttc.prms``, such as ``vllm``, with settings of their own.
        """
        if engine == "transformers":
            return self.local(path_or_hub, **settings)
        prm: RewardModel = prm_engine(engine).from_family(self, path_or_hub, **settings)
        return prm

    def local(self, path_or_hub: str | Path, **settings: Any) -> BatchedPRM:
        """Load one to run in this process's torch; see :meth:`load`."""
        from adaptive_ttc.prm.local import Backbone, BatchedPRM, LocalSettings

        chosen = LocalSettings.of(settings)
        folder = checkpoint.locate(path_or_hub, revision=chosen.revision)
        checkpoint.check_device(chosen.device)
        parts = self.parts(folder, chosen.device, chosen.dtype)
        checkpoint.set_threads(chosen.threads)
        decoders = [checkpoint.load_backbone(p, device=chosen.device, dtype=chosen.dtype) for p in parts.folders]
        return BatchedPRM(
            parts.reader,
            [Backbone(decoder) for decoder in decoders],
            name=str(path_or_hub),
            fingerprint=self.fingerprint(folder, parts, chosen.dtype),
            settings=chosen,
        )

    def fingerprint(self, folder: Path, parts: Parts, dtype: str) -> str:
        """See :func:`adaptive_ttc.prm.checkpoint.fingerprint`; models in sub-folders are covered as well."""
        others = (checkpoint.fingerprint(part) for part in parts.folders if part != folder)
        return checkpoint.fingerprint(folder, self.format, dtype, *others)
