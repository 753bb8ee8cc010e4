"""How a command ends: what went wrong as one line, and an exit code; it knows no command."""

from __future__ import annotations

import sys
from collections.abc import Callable

from adaptive_ttc.errors import AdaptiveTTCError, ConfigError


def exit_code(
    work: Callable[[], object],
    *,
    interrupted: str | None = None,
    impossible: type[Exception] | tuple[type[Exception], ...] = ConfigError,
) -> int:
    """Do the work of a command.

    Args:
        work: what the command does.
        interrupted: what is said after Ctrl-C, as what is kept and how to go on; None lets it pass.
        impossible: errors that say that what is asked for cannot be had.

    Returns:
        0, 1 when something failed, 2 when what is asked for is impossible, 130 after Ctrl-C.
    """
    try:
        work()
    except AdaptiveTTCError as error:
        print("error:", " ".join(str(error).split()), file=sys.stderr)
        return 2 if isinstance(error, impossible) else 1
    except KeyboardInterrupt:
        if interrupted is None:
            raise
        print(f"interrupted: {interrupted}", file=sys.stderr)
        return 130
    return 0
