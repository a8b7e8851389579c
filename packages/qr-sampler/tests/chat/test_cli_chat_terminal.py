# SPDX-License-Identifier: Apache-2.0
"""``qr-sampler chat`` in a terminal: colours, Ctrl-C and Ctrl-D, nothing raw from the model."""

from __future__ import annotations

import json
import os
import re
import select
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

pty = pytest.importorskip("pty", reason="Windows has no pseudo-terminals")

PROGRAM = Path(__file__).with_name("toy_engine.py")
PATIENCE_S = 30.0

KEPT = ("HOME", "NUMBA_CACHE_DIR", "PATH", "PYTHONPATH")
"""Variables that the program needs, and none that steer colours or settings."""

ESCAPES = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
BACKGROUND = re.compile(r"\x1b\[[0-9;]*48;2;(\d+);(\d+);(\d+)m(.*?)\x1b\[0m")


class Terminal:
    """A conversation in a pseudo-terminal; what it prints is in ``text``."""

    def __init__(self, place: Path, arguments: tuple[str, ...], **environment: str) -> None:
        self.text = ""
        self._waited_for = 0
        self._master, slave = pty.openpty()
        kept = {name: os.environ[name] for name in KEPT if name in os.environ}
        self.process = subprocess.Popen(
            [sys.executable, str(PROGRAM), "chat", "--model=m", "--records=r.jsonl", *arguments],
            stdin=slave,
            stdout=slave,
            stderr=slave,
            cwd=place,
            env={
                **kept,
                "TOY_TERMINAL": "1",
                "TERM": "xterm-256color",
                "COLORTERM": "truecolor",
                "COLUMNS": "100",
                "QR_SIGNAL_AMPLIFIER_TYPE": "exact_sum",
                "QR_SAMPLE_COUNT": "64",
                "PYTHONUTF8": "1",
                **environment,
            },
            start_new_session=True,
        )
        os.close(slave)

    def type(self, keys: str) -> None:
        os.write(self._master, keys.encode())

    def interrupt(self) -> None:
        """Presses Ctrl-C until something is printed.

        Python does not notice one that comes between the prompt and the wait for keys, a moment
        that is too short for people.
        """
        for _ in range(10):
            self.type("\x03")
            if select.select([self._master], [], [], PATIENCE_S / 10)[0]:
                return

    def wait_for(self, text: str) -> None:
        """Reads until *text* was printed, after what the last call has waited for."""
        while (place := self._plain().find(text, self._waited_for)) < 0:
            assert self._read(), f"it has ended without {text!r}: {self.text!r}"
        self._waited_for = place + len(text)

    def _plain(self) -> str:
        return ESCAPES.sub("", self.text)

    def end(self) -> int:
        """Reads the rest and returns the exit status."""
        while self._read():
            pass
        return self.process.wait(PATIENCE_S)

    def _read(self) -> bool:
        readable, _, _ = select.select([self._master], [], [], PATIENCE_S)
        assert readable, f"nothing more was printed after {self.text!r}"
        try:
            piece = os.read(self._master, 1 << 16)
        except OSError:  # Linux says so when the other side is closed.
            return False
        # A character may be cut; all that is compared is ASCII.
        self.text += piece.decode("utf-8", "replace")
        return bool(piece)

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait(PATIENCE_S)
        os.close(self._master)


@pytest.fixture
def open_terminal(tmp_path: Path) -> Iterator[Callable[..., Terminal]]:
    terminals: list[Terminal] = []

    def open_one(*arguments: str, **environment: str) -> Terminal:
        terminals.append(Terminal(tmp_path, arguments, **environment))
        return terminals[-1]

    yield open_one
    for terminal in terminals:
        terminal.close()


def lines_of(path: Path, kind: str) -> list[dict[str, Any]]:
    lines = [json.loads(line) for line in path.read_text("utf-8").splitlines()]
    return [line for line in lines if line["kind"] == kind]


def test_ctrl_c_ends_a_reply_and_ctrl_d_the_conversation(
    open_terminal: Callable[..., Terminal], tmp_path: Path
) -> None:
    terminal = open_terminal(TOY_TIMES="1000", TOY_PAUSE_S="0.002")
    terminal.wait_for("> ")
    terminal.type("Hello\n")
    terminal.wait_for("Light")
    terminal.type("\x03")
    terminal.wait_for("> ")
    terminal.type("/shade v\n")
    terminal.wait_for("choose u or none")
    terminal.wait_for("> ")
    terminal.type("\x04")
    assert terminal.end() == 0
    (summary,) = re.findall(r"(\d+) tokens \| 100\.0 % from system", terminal.text)
    tokens = lines_of(tmp_path / "r.jsonl", "token")
    assert int(summary) == len(tokens) < 30_000
    discards = [line["reason"] for line in lines_of(tmp_path / "r.jsonl", "discard")]
    # The one that was drawn ahead.
    assert [reason for reason in discards if reason != "startup_test"] == ["not_emitted"]


def test_tokens_are_shaded_by_u_and_nothing_of_the_model_steers(
    open_terminal: Callable[..., Terminal], tmp_path: Path, toy_module: Any
) -> None:
    from qr_sampler_cli.chat.shading import background

    terminal = open_terminal("--shade=u")
    terminal.wait_for("> ")
    terminal.type("Hello\n")
    terminal.wait_for("bent.")
    terminal.wait_for("> ")
    shown = terminal.text.replace("\r", "")
    # With no reply to end, it ends the conversation.
    terminal.interrupt()
    assert terminal.end() == 0
    assert "30 tokens | 100.0 % from system" in terminal.text
    us = [line["u"] for line in lines_of(tmp_path / "r.jsonl", "token")]
    reply = shown[shown.index("Hello") :]
    found = [(text, tuple(map(int, rgb))) for *rgb, text in BACKGROUND.findall(reply)]
    text = "".join(text for text, _ in found)
    assert text == "Light \u2600 is \\x1b[2J\\x9b5m \ufffd bent."
    completing = _with_text(toy_module)
    # Two bytes of the sun, the first one of a control character, and one that could begin another.
    assert len(completing) == 29 - 4
    assert [colours for _, colours in found] == [background(us[index]) for index in completing]
    assert "\x1b[2J" not in terminal.text
    assert "\x9b" not in terminal.text


def _with_text(toy_module: Any) -> list[int]:
    """Returns the positions of the tokens that complete a character."""
    from qr_sampler_cli.chat.text_stream import TextStream

    engine = toy_module.ToyEngine
    stream = TextStream(lambda tokens: engine.decode(engine, tokens), [])
    return [index for index, byte in enumerate(engine.sentence) if stream.add(byte)]


@pytest.mark.heavy
def test_without_colours_the_text_is_plain(open_terminal: Callable[..., Terminal]) -> None:
    terminal = open_terminal("--shade=u", NO_COLOR="1")
    terminal.wait_for("tokens are not shaded")
    terminal.wait_for("> ")
    terminal.type("Hello\n")
    terminal.wait_for("bent.")
    terminal.type("/quit\n")
    assert terminal.end() == 0
    assert "48;2;" not in terminal.text
