"""``serve``: an OpenAI-compatible endpoint in front of a pair, of vLLM or of a fleet, that solves within budgets."""

from __future__ import annotations

import argparse
import asyncio
import logging
import socket
import sys
from collections.abc import Iterable
from pathlib import Path
from types import FrameType
from typing import Any

from rich.console import Console

from adaptive_ttc.cli.options import add_model_options, load_solver, units
from adaptive_ttc.configuration.recipe import SERVED, read_recipe
from adaptive_ttc.cost import COUNTS
from adaptive_ttc.errors import ConfigError, install_command, see
from adaptive_ttc.tracing.tree_text import printable

DRAIN = 30
"""Seconds that requests have to end with what they have, after the server was told to end."""


def add(subparsers: Any) -> None:
    """Add the command's parser."""
    parser = subparsers.add_parser(
        "serve",
        help="an OpenAI-compatible endpoint that solves within budgets",
        description="Serve /v1/chat/completions, solved within a token budget each (docs/serving.md).",
    )
    option = parser.add_argument_group("server").add_argument
    option("--host", default="127.0.0.1", help="address to listen at (default: %(default)s, this machine alone)")
    option("--port", type=int, help="(default: the recipe's, else 8000; 0 takes a free one)")
    option("--name", help="of the served model (default: the recipe's, else the policy's)")
    option("--keys", metavar="FILE", help="TOML with the API keys that may ask, and their budgets (docs/serving.md)")
    option("--open", action="store_true", help="serve other machines without API keys")
    option(
        "--cors-origin",
        action="append",
        default=[],
        metavar="ORIGIN",
        help="whose web pages may ask, as https://example.org; repeatable; '*' for all (default: none)",
    )
    option("--log-level", default="warning", choices=("debug", "info", "warning", "error"), help="(default: warning)")
    option = parser.add_argument_group("budgets").add_argument
    option("--default-budget", type=units, metavar="T", help="of a request that names none (4000)")
    option("--most-budget", type=units, metavar="T", help="most that a request may ask for")
    option("--total-budget", type=units, metavar="T", help="most that is spent until the server ends")
    option("--count", choices=COUNTS, help="what budgets bound (default: generated tokens)")
    option = parser.add_argument_group("limits").add_argument
    option("--max-concurrency", type=int, metavar="N", help="requests at work at once (64)")
    option("--max-waiting", type=int, metavar="N", help="requests that wait; more get 429 (256)")
    option("--max-body", type=int, metavar="BYTES", help="of a request (1 MiB)")
    option("--seed", type=int, help="of all randomness, so that equal requests get equal answers")
    add_model_options(parser)
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Serve until a signal comes; see :func:`add`."""
    try:
        import uvicorn

        from adaptive_ttc.serve import ServeConfig, Service, read_keys
    except ImportError as error:
        raise ConfigError(
            f"serving needs starlette and uvicorn ({error}): {install_command('serve')} {see('serving.md')}"
        ) from None

    said = _said(options)
    options.port = said.pop("port")
    _check_address(options)
    _check_free(options.host, options.port)
    keys = read_keys(options.keys) if options.keys else ()
    config = ServeConfig(**said, keys=keys, cors_origins=tuple(options.cors_origin))
    name = config.model
    logging.basicConfig(level=options.log_level.upper(), format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    console = Console(stderr=True)
    with console.status("loading the models"):
        solver = load_solver(options, options.seed, defaults=True)
    service = Service(solver, config)

    class Server(uvicorn.Server):
        """Lets requests end with what they have when it is told to end, and says where it listens."""

        def handle_exit(self, sig: int, frame: FrameType | None) -> None:
            """A signal came."""
            asyncio.get_running_loop().call_soon_threadsafe(service.end)
            super().handle_exit(sig, frame)

        async def startup(self, sockets: Any = None) -> None:
            """Listen."""
            await super().startup(sockets)
            if self.started:
                _leave_the_silent((each for one in self.servers for each in one.sockets), config.write_timeout)
                host, port = self.servers[0].sockets[0].getsockname()[:2]
                where = f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
                print(f"{printable(name)} is served at {where}/v1, its page at {where}/", file=sys.stderr, flush=True)

    server = Server(
        uvicorn.Config(
            service.app,
            host=options.host,
            port=options.port,
            log_level=options.log_level,
            access_log=False,
            timeout_graceful_shutdown=DRAIN,
            lifespan="off",
        )
    )
    asyncio.run(_serve(server, solver))
    return 0


def _check_free(host: str, port: int) -> None:
    """ConfigError: another program listens there, or this one may not."""
    try:
        socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET).close()
    except OSError as error:
        raise ConfigError(
            f"--host {host} --port {port}: {error.strerror}; give another --port, or 0 for a free one"
        ) from None


def _leave_the_silent(sockets: Iterable[Any], seconds: float) -> None:
    """Connections whose client takes nothing for so long end, with what is unsent."""
    if hasattr(socket, "TCP_USER_TIMEOUT"):  # Linux; connections have it from the socket that listens
        for one in sockets:
            one.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, int(1000 * seconds))


def _said(options: argparse.Namespace) -> dict[str, Any]:
    """What the options say of the server, else the recipe; ``port``, and fields of ``ServeConfig``."""
    recipe = None if options.recipe is None else read_recipe(options.recipe)
    said: dict[str, Any] = {"port": 8000, "model": Path(options.policy or "mini").name}
    if recipe is not None:
        budget, count = recipe.solve.get("budget_tokens"), recipe.solve.get("count")
        of_solve = {"default_budget": budget, "count": count}
        said |= {"model": recipe.name, **{name: value for name, value in of_solve.items() if value is not None}}
        said |= {{"name": "model"}.get(name, name): value for name, value in recipe.serve.items()}
    given = {name: getattr(options, name, None) for name in SERVED}
    given["model"] = given.pop("name")
    return said | {name: value for name, value in given.items() if value is not None}


def _check_address(options: argparse.Namespace) -> None:
    if options.host not in ("127.0.0.1", "localhost", "::1") and not (options.keys or options.open):
        raise ConfigError(
            f"--host {options.host} lets other machines spend what runs here: give --keys FILE, or --open to let them"
        )
    if "*" in options.cors_origin and not (options.keys or options.open):
        raise ConfigError(
            "--cors-origin '*' lets every web page that somebody here looks at spend what runs here: name the origins, "
            "or give --keys FILE, or --open to let them"
        )
    if not 0 <= options.port <= 65535:
        raise ConfigError(f"--port is from 0, which takes a free one, to 65535; got {options.port}")


async def _serve(server: Any, solver: Any) -> None:
    async with solver:
        solver.grader.start()
        await server.serve()
