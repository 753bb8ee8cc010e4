"""The wire formats of six servers, as their source and documentation have them, for :class:`ToyServer`.

A :class:`Profile` says what such a server answers: which prompts it takes, its events for a token and for the end, its
list of models, its errors. Stop strings are honoured by all; what differs is what they say of it.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from typing import Any

from adaptive_ttc.policies.fake import EOS
from adaptive_ttc.policies.fake.writers import ASSISTANT, SYSTEM, USER, decode_tokens

Json = dict[str, Any]
MODEL = "toy"


@dataclass
class Turn:
    """An answer under way: the request, the prompt's and the answer's tokens so far, and why it ended."""

    chat: bool
    body: Json
    prompt: tuple[int, ...]
    tokens: list[int]
    logprobs: list[float]
    finish: str | None = None  # ``eos``, ``stop`` or ``length``
    stop: str | None = None  # the stop string that ended it
    told: int = 0  # tokens that the client knows of

    def choice(self, text: str | None, finish: str | None, **more: Any) -> Json:
        content = {"delta": {"role": "assistant", "content": text}} if self.chat else {"text": text or ""}
        return {"index": 0, **content, "logprobs": None, "finish_reason": finish, **more}

    def fresh(self) -> tuple[list[int], list[float], str]:
        """Tokens that the client does not know of yet, their log-probabilities and their text."""
        tokens, logprobs = self.tokens[self.told :], self.logprobs[self.told :]
        self.told = len(self.tokens)
        return tokens, logprobs, text_of(tokens)

    def asks(self, option: str) -> bool:
        """Whether the request asks for an option of its stream."""
        return bool(self.body.get("stream_options", {}).get(option))


@dataclass(frozen=True)
class Profile:
    """A server that says what the standard has, and no more; the others differ from it.

    Attributes:
        name: its name.
        prompts: forms of prompts that it takes, of ``ids``, ``text`` and ``chat``.
        owner: who is said to own its models.
        models: those that it lists.
    """

    name: str = "plain"
    prompts: tuple[str, ...] = ("text", "chat")
    owner: str = "somebody"
    models: tuple[str, ...] = (MODEL,)

    def health(self) -> tuple[int, Any]:
        return 404, {"detail": "Not Found"}

    def card(self, name: str, length: int) -> Json:
        return {"id": name, "object": "model", "created": 0, "owned_by": self.owner}

    def refusal(self, body: Json) -> tuple[int, Any] | None:
        """Status and content for a request that it does not take."""
        return None

    def prompt(self, ids: tuple[int, ...], chat: bool) -> tuple[int, ...]:
        """What it reads in place of a prompt."""
        return ids

    def opening(self, turn: Turn) -> list[Any]:
        """Events before the first token; a string is written as it is."""
        return []

    def piece(self, turn: Turn) -> list[Any]:
        """Events for the newest token."""
        _, _, text = turn.fresh()
        return [chunk(turn, turn.choice(text, self.word(turn)))]

    def closing(self, turn: Turn) -> list[Any]:
        """Events behind the last token."""
        return [chunk(turn, usage=usage(turn))] if turn.asks("include_usage") else []

    def whole(self, turn: Turn) -> Json | None:
        """Its answer in one piece; None from a server that streams."""
        return None

    def word(self, turn: Turn) -> str | None:
        return turn.finish and {"eos": "stop", "stop": "stop", "length": "length"}[turn.finish]

    def failure(self, said: str) -> list[Any]:
        """Events of a generation that failed."""
        return [{"error": {"message": said, "type": "server_error", "code": None}}]


def text_of(tokens: list[int]) -> str:
    return decode_tokens([token for token in tokens if token != EOS])


def chunk(turn: Turn, *choices: Json, **more: Any) -> Json:
    kind = "chat.completion.chunk" if turn.chat else "text_completion"
    return {"id": "cmpl-1", "object": kind, "created": 1_700_000_000, "model": MODEL, "choices": list(choices), **more}


def usage(turn: Turn, **more: Any) -> Json:
    read, written = len(turn.prompt), len(turn.tokens)
    return {"prompt_tokens": read, "completion_tokens": written, "total_tokens": read + written, **more}


def cached(turn: Turn) -> int:
    """A continuation finds all but its last token in the cache."""
    return len(turn.prompt) - 1 if turn.prompt[-1] != ASSISTANT else 0


def lists(names: list[str], logprobs: list[float]) -> Json:
    """Log-probabilities as completions of vLLM and SGLang have them."""
    return {"text_offset": [], "token_logprobs": logprobs, "tokens": names, "top_logprobs": []}


def entries(names: list[str], logprobs: list[float], **more: list[Any]) -> Json:
    """Log-probabilities as chat completions have them."""
    rows = [
        {"token": name, "logprob": one, "bytes": None, "top_logprobs": []}
        for name, one in zip(names, logprobs, strict=True)
    ]
    for key, values in more.items():
        for row, value in zip(rows, values, strict=True):
            row[key] = value
    return {"content": rows}


@dataclass(frozen=True)
class Vllm(Profile):
    """vLLM 0.32: pieces of ``stream_interval`` tokens with their ids, running counts, ``stop_reason``."""

    name: str = "vllm"
    prompts: tuple[str, ...] = ("ids", "text", "chat")
    owner: str = "vllm"

    def health(self) -> tuple[int, Any]:
        return 200, None

    def card(self, name: str, length: int) -> Json:
        return {**super().card(name, length), "root": name, "parent": None, "max_model_len": length, "permission": []}

    def opening(self, turn: Turn) -> list[Any]:
        return [chunk(turn, turn.choice("", None), prompt_token_ids=None)] if turn.chat else []

    def piece(self, turn: Turn) -> list[Any]:
        interval = turn.body.get("stream_interval", 1)
        if not turn.finish and len(turn.tokens) > 1 and len(turn.tokens) % interval:
            return []
        tokens, logprobs, text = turn.fresh()
        ids = turn.body.get("return_tokens_as_token_ids")
        names = [f"token_id:{token}" if ids else text_of([token]) for token in tokens]
        told = turn.choice(text, self.word(turn), stop_reason=turn.stop)
        if turn.body.get("return_token_ids"):
            told["token_ids"] = tokens
        if turn.body.get("logprobs"):
            told["logprobs"] = (entries if turn.chat else lists)(names, logprobs)
        running = {"usage": usage(turn)} if turn.asks("continuous_usage_stats") else {}
        return [chunk(turn, told, **running)]

    def closing(self, turn: Turn) -> list[Any]:
        return [chunk(turn, usage=usage(turn, prompt_tokens_details={"cached_tokens": cached(turn)}))]

    def failure(self, said: str) -> list[Any]:
        return [{"error": {"message": said, "type": "InternalServerError", "param": None, "code": 500}}]


@dataclass(frozen=True)
class SGLang(Profile):
    """SGLang: ids where asked for, ``matched_stop`` with the end token's id, a chat's end in an event of its own."""

    name: str = "sglang"
    prompts: tuple[str, ...] = ("ids", "text", "chat")
    owner: str = "sglang"

    def health(self) -> tuple[int, Any]:
        return 200, ""

    def card(self, name: str, length: int) -> Json:
        return {**super().card(name, length), "root": name, "max_model_len": length}

    def refusal(self, body: Json) -> tuple[int, Any] | None:
        if not ("messages" in body and body.get("return_token_ids")):
            return None
        said = "return_token_ids is not supported with streaming on /v1/chat/completions. Please set stream=false."
        return 400, {"object": "error", "message": said, "type": "BadRequestError", "code": 400}

    def opening(self, turn: Turn) -> list[Any]:
        return [chunk(turn, turn.choice("", None, matched_stop=None), usage=None)] if turn.chat else []

    def piece(self, turn: Turn) -> list[Any]:
        tokens, logprobs, text = turn.fresh()
        matched = turn.stop or (EOS if turn.finish == "eos" else None)
        told = turn.choice(text, None, matched_stop=None)
        if turn.body.get("return_token_ids"):
            told["token_ids"] = tokens
        if turn.body.get("logprobs"):
            told["logprobs"] = (entries if turn.chat else lists)([decode_tokens([one]) for one in tokens], logprobs)
        running = {"usage": usage(turn, reasoning_tokens=0)} if turn.asks("continuous_usage_stats") else {"usage": None}
        end = {"finish_reason": self.word(turn), "matched_stop": matched}
        if not turn.chat:
            return [chunk(turn, {**told, **end}, **running)]
        told["delta"] = {"role": None, "content": text, "reasoning_content": None, "tool_calls": None}
        last = {"index": 0, "delta": {"role": None, "content": None}, "logprobs": None, **end}
        return [chunk(turn, told, **running), *([chunk(turn, last, usage=None)] if turn.finish else [])]

    def closing(self, turn: Turn) -> list[Any]:
        details = {"prompt_tokens_details": {"cached_tokens": cached(turn)}, "reasoning_tokens": 0}
        return [chunk(turn, usage=usage(turn, **details))]

    def failure(self, said: str) -> list[Any]:
        return [{"error": {"object": "error", "message": said, "type": "INTERNAL_SERVER_ERROR", "code": 500}}]


@dataclass(frozen=True)
class LlamaCpp(Profile):
    """llama.cpp: ids beside its log-probabilities, ``timings``, a first ``content: null``, no word of stop strings."""

    name: str = "llama.cpp"
    prompts: tuple[str, ...] = ("ids", "text", "chat")
    owner: str = "llamacpp"

    def health(self) -> tuple[int, Any]:
        return 200, {"status": "ok"}

    def card(self, name: str, length: int) -> Json:
        return {**super().card(name, length), "meta": {"vocab_type": 2, "n_vocab": 300, "n_ctx_train": 131_072}}

    def opening(self, turn: Turn) -> list[Any]:
        return [": ping", *([chunk(turn, turn.choice(None, None))] if turn.chat else [])]

    def piece(self, turn: Turn) -> list[Any]:
        tokens, logprobs, text = turn.fresh()
        told: list[Any] = []
        if turn.finish != "eos" or not turn.chat:  # in a chat there is no event without a text
            one = turn.choice(text, None)
            if turn.chat:
                one["delta"] = {"content": text}
            if turn.body.get("logprobs"):
                one["logprobs"] = entries([text], logprobs, id=tokens)
            told.append(chunk(turn, one, **self.timings(turn)))
        if turn.finish:
            end = {**turn.choice("", self.word(turn)), **({"delta": {}} if turn.chat else {})}
            told.append(chunk(turn, end, **({} if turn.chat else {"usage": usage(turn), **self.timings(turn)})))
        return told

    def timings(self, turn: Turn) -> Json:
        if not (turn.finish or turn.body.get("timings_per_token")):
            return {}
        known = cached(turn)
        return {"timings": {"cache_n": known, "prompt_n": len(turn.prompt) - known, "predicted_n": len(turn.tokens)}}

    def closing(self, turn: Turn) -> list[Any]:
        return [chunk(turn, usage=usage(turn), **self.timings(turn))] if turn.chat else []

    def failure(self, said: str) -> list[Any]:
        return [{"error": {"code": 500, "message": said, "type": "server_error"}}]


@dataclass(frozen=True)
class Ollama(Profile):
    """Ollama: chats; a text gets the model's template around it, and counts of 0 with every event but the last."""

    name: str = "ollama"
    owner: str = "library"
    models: tuple[str, ...] = ("llama3.2:1b", MODEL)

    def refusal(self, body: Json) -> tuple[int, Any] | None:
        if isinstance(body.get("prompt"), list):
            said = "json: cannot unmarshal array into Go struct field CompletionRequest.prompt of type string"
            return 400, {"error": {"message": said, "type": "invalid_request_error", "param": None, "code": None}}
        return None

    def prompt(self, ids: tuple[int, ...], chat: bool) -> tuple[int, ...]:
        return ids if chat else (SYSTEM, *b"You are a helpful assistant.", USER, *ids, ASSISTANT)

    def piece(self, turn: Turn) -> list[Any]:
        _, _, text = turn.fresh()
        idle = {"usage": {"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0}} if not turn.chat else {}
        told = [] if turn.finish == "eos" else [chunk(turn, turn.choice(text, None), **idle)]
        return [*told, *([chunk(turn, turn.choice("", self.word(turn)), **idle)] if turn.finish else [])]

    def failure(self, said: str) -> list[Any]:
        return [{"error": said}]


@dataclass(frozen=True)
class Tgi(Profile):
    """TGI: refuses ``top_p`` of 1; its completions end with ``eos_token`` and write out the end token."""

    name: str = "tgi"
    owner: str = MODEL

    def health(self) -> tuple[int, Any]:
        return 200, None

    def refusal(self, body: Json) -> tuple[int, Any] | None:
        if isinstance(body.get("prompt"), list):
            return 422, "Failed to deserialize the JSON body into the target type: prompt: expected a string"
        if not 0 < body.get("top_p", 0.5) < 1:
            said = "Input validation error: `top_p` must be > 0.0 and < 1.0"
            return 422, {"error": said, "error_type": "validation"}
        return None

    def opening(self, turn: Turn) -> list[Any]:
        return [":"]

    def piece(self, turn: Turn) -> list[Any]:
        [token], logprobs, text = turn.fresh()
        if turn.chat:
            told = turn.choice(text, self.word(turn))
            if turn.body.get("logprobs"):
                told["logprobs"] = entries([text or "<end>"], logprobs)
            return [chunk(turn, told, usage=None)]
        told = turn.choice("<end>" if token == EOS else text, self.word(turn) or "")
        return [chunk(turn, told, **({"usage": usage(turn)} if turn.finish else {}))]

    def closing(self, turn: Turn) -> list[Any]:
        return [chunk(turn, usage=usage(turn))] if turn.chat and turn.asks("include_usage") else []

    def word(self, turn: Turn) -> str | None:
        said = super().word(turn)
        return said if turn.chat or said != "stop" else {"eos": "eos_token", "stop": "stop_sequence"}[turn.finish or ""]

    def failure(self, said: str) -> list[Any]:
        return [{"error": f"Request failed during generation: {said}", "error_type": "generation"}]


@dataclass(frozen=True)
class LmStudio(Profile):
    """LM Studio up to 0.3.17: counts nothing in a stream, answers 200 to paths that it has not, ``event: error``."""

    name: str = "lm-studio"
    owner: str = "organization_owner"
    models: tuple[str, ...] = (MODEL, "text-embedding-nomic-embed-text-v1.5")

    def health(self) -> tuple[int, Any]:
        return 200, {"error": "Unexpected endpoint or method. (GET /health)"}

    def refusal(self, body: Json) -> tuple[int, Any] | None:
        return (400, {"error": "'prompt' must be a string"}) if isinstance(body.get("prompt"), list) else None

    def piece(self, turn: Turn) -> list[Any]:
        _, _, text = turn.fresh()
        told = [] if turn.finish == "eos" else [chunk(turn, turn.choice(text, None), system_fingerprint=MODEL)]
        end = turn.choice(None, self.word(turn))
        if turn.chat:
            end["delta"] = {}
        return [*told, *([chunk(turn, end, system_fingerprint=MODEL)] if turn.finish else [])]

    def closing(self, turn: Turn) -> list[Any]:
        return []

    def failure(self, said: str) -> list[Any]:
        return [f"event: error\ndata: {json.dumps({'error': {'message': said}})}"]


VLLM, SGLANG, LLAMA_CPP, OLLAMA, TGI, LM_STUDIO = Vllm(), SGLang(), LlamaCpp(), Ollama(), Tgi(), LmStudio()
PROFILES = (VLLM, SGLANG, LLAMA_CPP, OLLAMA, TGI, LM_STUDIO)


def _without_ids(events: list[Any]) -> list[Any]:
    for event in events:
        event["choices"][0].pop("token_ids", None)
    return events


@dataclass(frozen=True)
class OldVllm(Vllm):
    """vLLM before ``return_token_ids``: the tokens' names have their ids."""

    name: str = "old-vllm"
    owner: str = "somebody"

    def piece(self, turn: Turn) -> list[Any]:
        return _without_ids(super().piece(turn))


@dataclass(frozen=True)
class OldSGLang(SGLang):
    """SGLang before ``return_token_ids``, behind a router that hides whose it is."""

    name: str = "old-sglang"
    owner: str = "somebody"

    def piece(self, turn: Turn) -> list[Any]:
        return _without_ids(super().piece(turn))


@dataclass(frozen=True)
class Healthless(Vllm):
    """vLLM behind something that has no ``/health``."""

    def health(self) -> tuple[int, Any]:
        return 404, {}


@dataclass(frozen=True)
class Hosted(Profile):
    """OpenAI's own, for its newer models: each field that it does not know is refused, and so is ``max_tokens``."""

    name: str = "hosted"
    prompts: tuple[str, ...] = ("chat",)

    def refusal(self, body: Json) -> tuple[int, Any] | None:
        known = {"model", "messages", "max_completion_tokens", "max_tokens", "temperature", "top_p", "seed", "stream"}
        said = None
        if unknown := sorted(set(body) - known - {"stream_options", "logprobs", "top_logprobs"}):
            said = f"Unrecognized request argument supplied: {unknown[0]}"
        elif "max_tokens" in body:
            said = "Unsupported parameter: 'max_tokens' is not supported with this model. Use 'max_completion_tokens'."
        return said and (400, {"error": {"message": said, "type": "invalid_request_error", "param": None}})


@dataclass(frozen=True)
class Unstreamed(Profile):
    """Answers in one piece whether or not a stream is asked for."""

    name: str = "unstreamed"
    prompts: tuple[str, ...] = ("chat",)

    def whole(self, turn: Turn) -> Json:
        message = {"role": "assistant", "content": [{"type": "text", "text": text_of(turn.tokens)}]}
        return chunk(turn, {"index": 0, "message": message, "finish_reason": self.word(turn)}, usage=usage(turn))


OLD_VLLM, OLD_SGLANG, HEALTHLESS = OldVllm(), OldSGLang(), Healthless()
HOSTED, UNSTREAMED = Hosted(), Unstreamed()
PLAIN = Profile()
TEXT_ONLY, CHAT_ONLY = replace(PLAIN, prompts=("text",)), replace(SGLANG, prompts=("chat",), owner="somebody")
