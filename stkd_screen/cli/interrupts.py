"""Ctrl-C and requests to end: SIGINT and SIGTERM."""

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

import typer

_SIGNALS = (signal.SIGINT, signal.SIGTERM)
Handler = Callable[[int, FrameType | None], None]


class Interrupted(BaseException):
    """Ctrl-C or a request to end. A class of our own: typer would take a KeyboardInterrupt for an error."""


@contextmanager
def interrupts_raise() -> Iterator[None]:
    """Stop where the program is, by `Interrupted` with the number of the signal."""

    def stop(number: int, _: FrameType | None) -> None:
        spinner_away = "\r\x1b[2K" if os.isatty(2) else ""
        typer.secho(f"{spinner_away}stopping", fg="red", err=True)
        raise Interrupted(number)

    with _handling(stop):
        yield


class Request:
    """Whether the user has asked for an end, and by which signal."""

    signal: int | None = None

    def __call__(self) -> bool:
        return self.signal is not None


@contextmanager
def interrupts_ask(message: str) -> Iterator[Request]:
    """The first interrupt asks for an end, the second one is one: at once, as if the process were killed."""
    request = Request()

    def ask(number: int, _: FrameType | None) -> None:
        if request.signal is not None:
            show_cursor = "\x1b[?25h" if os.isatty(2) else ""
            os.write(2, f"{show_cursor}stopped\n".encode())
            os._exit(128 + number)
        request.signal = number
        os.write(2, f"\n{message}\n".encode())

    with _handling(ask):
        yield request


@contextmanager
def _handling(handler: Handler) -> Iterator[None]:
    before = {number: signal.signal(number, handler) for number in _SIGNALS}
    try:
        yield
    finally:
        for number, old in before.items():
            signal.signal(number, old)
