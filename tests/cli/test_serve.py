"""The command ``serve``: refused early where it cannot be; at SIGTERM under load, every request gets its answer."""

import re
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path

import openai
import pytest

import adaptive_ttc
from adaptive_ttc.cli import main

ROOT = Path(adaptive_ttc.__file__).parent.parent
CLIENTS = 6


def test_what_cannot_be_served_is_refused_before_models_are_loaded(capsys, tmp_path):
    keys = tmp_path / "keys.toml"
    keys.write_text("[ann]\n")
    for words, said in (
        (["--host", "0.0.0.0"], "--keys"),
        (["--keys", str(keys)], "sha256"),
        (["--default-budget", "10", "--most-budget", "5"], "above the most"),
        (["--name", "a@b"], "@"),
        (["--port", "65536"], "--port"),
        (["--cors-origin", "*"], "--keys"),
        (["--cors-origin", "example.org"], "https://example.org"),
    ):
        assert main(["serve", *words]) == 2
        assert said in capsys.readouterr().err


def test_a_port_that_is_taken_is_told_before_models_are_loaded(capsys):
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        assert main(["serve", "--port", str(port)]) == 2
    err = capsys.readouterr().err
    assert f"--port {port}: Address already in use" in err
    assert "give another --port, or 0" in err


def test_at_sigterm_every_request_gets_its_answer():
    server = subprocess.Popen(
        [sys.executable, "-m", "adaptive_ttc", "serve", "--port", "0", "--total-budget", "1000000"],
        cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    with server:
        while (found := re.match(r"mini is served at ([^\s,]+)", server.stderr.readline())) is None:
            assert server.poll() is None
        answers, begun, finished = [], threading.Semaphore(0), threading.Event()

        def ask(number):
            with openai.OpenAI(base_url=found[1], api_key="any", max_retries=0) as client:
                stream = client.chat.completions.create(
                    model="mini", stream=True, messages=[{"role": "user", "content": f"Calculate {number} + 7 * 3."}],
                    extra_body={"strategy": "majority", "n": 512, "budget_tokens": 100_000, "include_trace": True},
                )  # fmt: skip
                for number, piece in enumerate(stream):
                    if number == 0:
                        begun.release()
                    elif (getattr(piece, "event", None) or {}).get("event") == "finished":
                        finished.set()
                answers.append((piece.choices[0].finish_reason, piece.metadata["stopped"]))

        threads = [threading.Thread(target=ask, args=(number,)) for number in range(CLIENTS)]
        for one in threads:
            one.start()
        for _ in range(CLIENTS):
            assert begun.acquire(timeout=60)
        assert finished.wait(60)
        server.send_signal(signal.SIGTERM)
        for one in threads:
            one.join(60)
        _, error = server.communicate(timeout=60)
    assert [stopped for _, stopped in answers] == ["stopped"] * CLIENTS
    assert "stop" in {finish for finish, _ in answers}
    assert server.returncode == 143
    assert "Traceback" not in error


@pytest.mark.parametrize("word", ["--help", "--version"])
def test_help_is_there_without_a_server(word, capsys):
    with pytest.raises(SystemExit) as ended:
        main(["serve", "--help"] if word == "--help" else ["--version"])
    assert ended.value.code == 0
    assert capsys.readouterr().out
