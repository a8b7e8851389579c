# SPDX-License-Identifier: Apache-2.0
"""An engine whose tokens are bytes and whose model has learnt one sentence by heart.

As a program it is ``qr-sampler`` with that engine in the place of every other. Records, draws and
numbers are real: a :class:`~qr_sampler_local.LocalSampler` chooses.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from qr_sampler import Settings
from qr_sampler.errors import ConfigError
from qr_sampler_local import LocalSampler, LocalSequence
from qr_sampler_local.engines import EmittedToken, Generated, TokenListener

END = 256
"""The token that ends a reply."""

BEGINS = 257
"""The token that texts begin with."""


class ToyEngine:
    """Says *sentence* again and again; *pause_s* is how long a token takes.

    Like some engines, it begins a further step before it hands a token over.
    """

    name, version, device = "toy", "1.0", "cpu"
    sentence = b"Light \xe2\x98\x80 is \x1b[2J\xc2\x9b5m \xff bent."
    times = 1
    pause_s = 0.0
    has_template = True
    longest_prompt = 4096

    def __init__(self, model: str, *, settings: Settings | None = None, **_: Any) -> None:
        self.prompts: list[list[int]] = []
        self.options: list[Mapping[str, object]] = []
        self._sampler = LocalSampler(model, settings, engine="toy 1.0")

    def encode(self, text: str) -> list[int]:
        return [BEGINS, *text.encode()]

    def encode_chat(self, messages: Sequence[Mapping[str, str]]) -> list[int]:
        if not self.has_template:
            raise ConfigError("the model has no chat template")
        return self.encode("".join(f"<{each['role']}>{each['content']}" for each in messages))

    def decode(self, tokens: Sequence[int]) -> str:
        return bytes(token for token in tokens if token < END).decode("utf-8", "replace")

    def spell(self, token_id: int) -> str:
        return self.decode([token_id])

    def generate(
        self,
        prompts: Sequence[Sequence[int]],
        *,
        max_tokens: int,
        options: Sequence[Mapping[str, object]],
        on_token: TokenListener | None = None,
    ) -> list[Generated]:
        (prompt,), (option,) = prompts, options
        if len(prompt) > self.longest_prompt:
            raise ConfigError(f"a prompt of {len(prompt)} tokens is too long")
        self.prompts.append(list(prompt))
        self.options.append(option)
        sequence = self._sampler.sequence(
            prompt, end_tokens=(END,), max_tokens=max_tokens, steps_in_flight=2, **option
        )
        reason: Any = "interrupted"
        self._shown = 0
        try:
            self._step(sequence)
            while not sequence.ended:
                handed = self._handed(sequence)
                self._step(sequence)
                self._hand_over(sequence, handed, on_token)
            self._hand_over(sequence, self._handed(sequence), on_token)
            reason = sequence.finish_reason
        except BaseException as error:
            self._sampler.dropped(sequence, len(sequence.tokens) - self._shown)
            self._sampler.emitted(sequence)
            if not isinstance(error, KeyboardInterrupt):
                raise
        finally:
            self._sampler.close(sequence)
        return [
            Generated(
                sequence=sequence.name,
                request_key=sequence.request_key,
                tokens=tuple(sequence.tokens),
                finish_reason=reason,
            )
        ]

    def _step(self, sequence: LocalSequence) -> None:
        time.sleep(self.pause_s)
        spoken = self.sentence * self.times
        position = len(sequence.tokens)
        logits = np.full((1, BEGINS + 1), -40.0, np.float32)
        logits[0, spoken[position] if position < len(spoken) else END] = 0.0
        self._sampler.step(logits, [sequence])

    def _handed(self, sequence: LocalSequence) -> EmittedToken:
        assert sequence.outcome is not None
        return EmittedToken.of(0, sequence.outcome)

    def _hand_over(
        self, sequence: LocalSequence, token: EmittedToken, on_token: TokenListener | None
    ) -> None:
        self._shown = token.position + 1
        self._sampler.emitted(sequence, self._shown)
        if on_token is not None:
            on_token(token)

    def close(self) -> None:
        self._sampler.close()


def main() -> None:
    """Runs the command in the terminal that it has got, as a shell would start it."""
    if os.environ.get("TOY_TERMINAL"):
        import fcntl
        import termios

        # Ctrl-C goes to whoever has the terminal.
        fcntl.ioctl(0, termios.TIOCSCTTY, 0)
    from qr_sampler_cli.chat import run
    from qr_sampler_cli.engines import EngineChoice, loading
    from qr_sampler_cli.generation import run as generation
    from qr_sampler_cli.main import app

    ToyEngine.pause_s = float(os.environ.get("TOY_PAUSE_S", "0"))
    ToyEngine.times = int(os.environ.get("TOY_TIMES", "1"))
    loading.load_engine = lambda _name, model, settings, arguments: ToyEngine(
        model, settings=settings
    )
    run.choose_engine = generation.choose_engine = lambda *_: EngineChoice("transformers")
    app(sys.argv[1:], prog_name="qr-sampler")


if __name__ == "__main__":
    main()
