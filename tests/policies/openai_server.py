"""A real HTTP server on localhost over the fake policy's writers, which speaks like one engine or another.

It runs in a thread with an event loop of its own, streams token by token, notices when a client goes away, and can be
killed: then its socket and all connections are gone at once, in the middle of whatever they were saying.
"""

from __future__ import annotations

import asyncio
import atexit
import json
import shutil
import tempfile
import threading
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from adaptive_ttc.policies.fake import EOS, ToyModel
from adaptive_ttc.policies.fake.writers import VOCAB_SIZE, decode_tokens, encode_problem
from adaptive_ttc.policies.requests import StopRule, TokenTexts
from adaptive_ttc.policy import SampleRequest
from adaptive_ttc.types import Message, Problem
from tests.policies.server_profiles import VLLM, Profile, Turn

SPECIALS = ("<end>", "<system>", "<user>", "<assistant>")
TEMPLATE = (
    "{% for message in messages %}{{ '<' + message['role'] + '>' + message['content'] }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<assistant>' }}{% endif %}"
)


@cache
def folder() -> Path:
    """Tokenizer and config of the fake policy's model, as a served one has them: one token a byte, no weights."""
    alphabet = ByteNames()
    core = Tokenizer(models.BPE(vocab=alphabet.vocabulary, merges=[]))
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    core.decoder = decoders.ByteLevel()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=core, eos_token=SPECIALS[0], additional_special_tokens=SPECIALS[1:]
    )
    tokenizer.chat_template = TEMPLATE
    path = Path(tempfile.mkdtemp(prefix="toy-model-"))
    atexit.register(shutil.rmtree, path, ignore_errors=True)
    tokenizer.save_pretrained(path)
    shape = {"hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1}
    config = {"model_type": "llama", "vocab_size": VOCAB_SIZE, "max_position_embeddings": 4096, "eos_token_id": EOS}
    config |= {"architectures": ["LlamaForCausalLM"], "bos_token_id": None, **shape}
    (path / "config.json").write_text(json.dumps(config))
    return path


class ByteNames:
    """The names that byte-level tokenizers give to bytes, each with the byte as its id."""

    def __init__(self) -> None:
        plain = [*range(33, 127), *range(161, 173), *range(174, 256)]
        others = [byte for byte in range(256) if byte not in plain]
        names = {byte: chr(byte) for byte in plain} | {byte: chr(256 + index) for index, byte in enumerate(others)}
        self.vocabulary = {names[byte]: byte for byte in range(256)} | {
            name: EOS + index for index, name in enumerate(SPECIALS)
        }


@dataclass
class Trouble:
    """What a server does wrong.

    Attributes:
        refusals: statuses with which the next requests are refused.
        die_after: total tokens after which the server is killed.
        break_after: tokens after which the next ``breaks`` answers are broken off.
        fail_after: tokens after which the next ``failures`` answers end with an error event.
        hang: answers nothing, but keeps the connection.
        sick: says so when asked for its health.
        bend: makes of the events of a token, or of the end, those that are sent.
    """

    refusals: list[int] = field(default_factory=list)
    die_after: int | None = None
    break_after: int | None = None
    breaks: int = 0
    fail_after: int = 0
    failures: int = 0
    hang: bool = False
    sick: bool = False
    bend: Callable[[list[Any]], list[Any]] = list


class ToyServer:
    """One replica.

    Args:
        manner: whose format it speaks.
        writer: what it writes; the toy model by default.
        max_model_len: what it says that it holds.
        pace: seconds that a token takes. With none, its thread leaves the others little time.

    Attributes:
        url: its base URL.
        requests: bodies of the requests that it began to answer.
        generated: tokens that it generated in all.
        gone: requests whose client went away before the end.
        paths: how often each path was asked for.
    """

    def __init__(
        self, manner: Profile = VLLM, writer: Any = None, *, max_model_len: int = 4096, pace: float = 0.0
    ) -> None:
        self.pace = pace
        self.manner, self.writer, self.max_model_len = manner, writer or ToyModel(), max_model_len
        self.trouble = Trouble()
        self.requests: list[dict[str, Any]] = []
        self.generated = self.gone = 0
        self.paths: Counter[str] = Counter()
        self.dead = False
        self._texts = TokenTexts(decode_tokens, ord("a"))
        self._connections: set[asyncio.StreamWriter] = set()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        self._server = self._call(asyncio.start_server(self._serve, "127.0.0.1", 0))
        self.port: int = self._server.sockets[0].getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}/v1"

    def kill(self) -> None:
        """Be gone at once; may be called from any thread."""
        self._loop.call_soon_threadsafe(self._die)

    def close(self) -> None:
        """Stop the thread."""
        if self._loop.is_closed():
            return
        self._call(self._end())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def __enter__(self) -> ToyServer:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _call(self, coroutine: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(30)

    def _die(self) -> None:
        self.dead = True
        self._server.close()
        for writer in self._connections:
            writer.transport.abort()

    async def _end(self) -> None:
        self._die()
        tasks = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._connections.add(writer)
        try:
            while not self.dead:
                head = (await reader.readuntil(b"\r\n\r\n")).decode()
                method, path, _ = head.split(" ", 2)
                length = next(
                    (
                        int(line.split(":")[1])
                        for line in head.splitlines()
                        if line.lower().startswith("content-length")
                    ),
                    0,
                )
                body = json.loads(await reader.readexactly(length) or b"{}")
                self.paths[path] += 1
                if method == "GET":
                    await self._get(writer, path)
                else:
                    await self._post(reader, writer, path, body)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            self._connections.discard(writer)
            writer.close()

    async def _get(self, writer: asyncio.StreamWriter, path: str) -> None:
        if path == "/health":
            status, said = self.manner.health()
            _reply(writer, 503 if self.trouble.sick else status, said)
        elif path == "/v1/models":
            cards = [self.manner.card(name, self.max_model_len) for name in self.manner.models]
            _reply(writer, 200, {"object": "list", "data": cards})
        else:
            _reply(writer, 404, {})
        await writer.drain()

    async def _post(self, reader: Any, writer: asyncio.StreamWriter, path: str, body: dict[str, Any]) -> None:
        if self.trouble.refusals:
            _reply(writer, self.trouble.refusals.pop(0), {"error": {"message": "not now"}}, **{"Retry-After": "0"})
            return await writer.drain()
        ids = self._read_prompt(path, body)
        refused = self.manner.refusal(body)
        if refused or ids is None:
            _reply(writer, *(refused or (400, {"error": {"message": "no such prompts here"}})))
            return await writer.drain()
        self.requests.append(body)
        if self.trouble.hang:
            await asyncio.Event().wait()
        turn = Turn("chat" in path, body, self.manner.prompt(ids, "chat" in path), [], [])
        kind = b"text/event-stream" if self.manner.whole(turn) is None else b"application/json"
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: " + kind + b"\r\nTransfer-Encoding: chunked\r\n\r\n")
        try:
            await self._stream(reader, writer, turn)
        except ConnectionError:
            self.gone += 1
            raise

    def _read_prompt(self, path: str, body: dict[str, Any]) -> tuple[int, ...] | None:
        if path == "/v1/chat/completions" and "chat" in self.manner.prompts:
            return _rendered(body["messages"])
        if path == "/v1/completions":
            prompt = body["prompt"]
            if isinstance(prompt, list) and "ids" in self.manner.prompts:
                return tuple(prompt)
            if isinstance(prompt, str) and "text" in self.manner.prompts:
                return tuple(_tokenizer().encode(prompt))
        return None

    async def _stream(self, reader: Any, writer: Any, turn: Turn) -> None:
        body, tokens, trouble = turn.body, turn.tokens, self.trouble
        request = SampleRequest(
            id="", prompt_ids=turn.prompt, max_tokens=body.get("max_tokens") or body["max_completion_tokens"],
            seed=body.get("seed", self.generated), temperature=body["temperature"], top_p=body.get("top_p", 1.0),
        )  # fmt: skip
        rule = StopRule(tuple(body.get("stop", ())), self._texts)
        breaks, fails = trouble.breaks > 0, trouble.failures > 0
        trouble.breaks -= breaks
        trouble.failures -= fails
        self._say(writer, self.manner.opening(turn))
        for token, logprob in self.writer.write(request):
            tokens.append(token)
            turn.logprobs.append(logprob)
            self.generated += 1
            if token == EOS:
                turn.finish = "eos"
            elif rule.met("", tokens):
                text = decode_tokens(tokens)
                turn.finish, turn.stop = "stop", next(one for one in body["stop"] if one in text)
            elif len(tokens) == request.max_tokens:
                turn.finish = "length"
            if self.manner.whole(turn) is not None:
                pass  # all in one piece at the end
            elif fails and len(tokens) > trouble.fail_after:
                self._say(writer, self.manner.failure("out of memory"))
                turn.finish = turn.finish or "failed"
            else:
                self._say(writer, self.manner.piece(turn))
            await writer.drain()
            if trouble.die_after is not None and self.generated >= trouble.die_after:
                self._die()
            broken = breaks and trouble.break_after == len(tokens)
            if broken:
                writer.transport.abort()
            if self.dead or broken:
                return
            if turn.finish:
                break
            await asyncio.sleep(self.pace)
            if reader.at_eof():
                raise ConnectionResetError
        if (whole := self.manner.whole(turn)) is not None:
            _part(writer, json.dumps(whole))
        else:
            self._say(writer, [] if fails else self.manner.closing(turn))
            self._say(writer, ["data: [DONE]"])
        writer.write(b"0\r\n\r\n")
        await writer.drain()

    def _say(self, writer: Any, events: list[Any]) -> None:
        for event in self.trouble.bend(events):
            lines = event if isinstance(event, str) else f"data: {json.dumps(event)}"
            _part(writer, f"{lines}\n\n")


@cache
def _tokenizer() -> Any:
    return PreTrainedTokenizerFast.from_pretrained(folder())


def _rendered(turns: list[dict[str, str]]) -> tuple[int, ...]:
    return encode_problem(Problem(tuple(Message(one["role"], one["content"]) for one in turns), ""))  # type: ignore[arg-type]


def _reply(writer: asyncio.StreamWriter, status: int, content: Any, **headers: str) -> None:
    data = json.dumps(content).encode()
    fields = {"Content-Type": "application/json", "Content-Length": str(len(data)), **headers}
    lines = [f"HTTP/1.1 {status} X", *(f"{name}: {value}" for name, value in fields.items())]
    writer.write("\r\n".join(lines).encode() + b"\r\n\r\n" + data)


def _part(writer: asyncio.StreamWriter, text: str) -> None:
    data = text.encode()
    writer.write(f"{len(data):x}\r\n".encode() + data + b"\r\n")
