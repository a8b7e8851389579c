# SPDX-License-Identifier: Apache-2.0
"""What answers the requests of a study: a host without a model, or vLLM in this process.

Whatever the engine, all arms are served by the same one: each request names its source with
``qr_entropy_source``.
"""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Protocol

import numpy as np

from qr_sampler.host import EngineFacts, SamplingSession
from qr_sampler.settings import Settings
from qr_sampler.testing.toy_host import END_TOKEN, VOCAB_SIZE, ToyHost
from qr_sampler_cli.engines.failures import engine_failures
from qr_sampler_cli.engines.models import check_model
from qr_sampler_cli.engines.plugin import require_plugin
from qr_sampler_cli.engines.vllm import VllmEngine as OfflineEngine
from qr_sampler_cli.environment import engine_defaults, environment
from qr_sampler_cli.terminal.consoles import stdout_reserved

__all__ = ["TOY_MODEL", "Answer", "Engine", "Question", "ToyEngine", "VllmEngine", "running"]

TOY_MODEL: Final = "toy-model.json"
"""File that makes a directory the model of a rehearsal, on a host without a model."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """One request of a study."""

    key: str
    """Its request key."""
    prompt: str
    """The text that is continued."""
    options: Mapping[str, Any]
    """Its ``qr_*`` options, labels included."""
    tokens: int
    """Most tokens of the answer; exactly so many if the length is fixed."""
    fixed_length: bool
    """Whether nothing else ends the answer."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What an engine has emitted for one request."""

    key: str
    """The request key."""
    token_ids: tuple[int, ...]
    """The tokens."""


class Engine(Protocol):
    """Something that answers requests and records every token in the study's ledger."""

    def answer(self, questions: Sequence[Question]) -> list[Answer]:
        """Returns the answers of questions that are served together; their records are on disk."""

    def close(self) -> None:
        """Ends the ledger."""


class ToyEngine:
    """A host without a model, whose logits follow from the key of a request: for rehearsals."""

    def __init__(self) -> None:
        facts = EngineFacts(engine="toy", model="toy")
        self._session = SamplingSession(facts, Settings.load())
        self._host = ToyHost(self._session)

    def answer(self, questions: Sequence[Question]) -> list[Answer]:
        """Returns one answer to each question; all are decoded in one batch."""
        asked = [
            self._host.add(
                question.tokens,
                **{name.removeprefix("qr_"): value for name, value in question.options.items()},
            )
            for question in questions
        ]
        logits = {
            id(request): np.random.default_rng(
                list(hashlib.sha256(question.key.encode()).digest()[:8])
            )
            for request, question in zip(asked, questions, strict=True)
        }
        fixed = {id(request) for request, q in zip(asked, questions, strict=True) if q.fixed_length}
        while self._host.running:
            rows = np.stack(
                [
                    logits[id(request)].normal(size=VOCAB_SIZE).astype(np.float32)
                    for request in self._host.running
                ]
            )
            for row, request in zip(rows, self._host.running, strict=True):
                row[END_TOKEN] = -np.inf if id(request) in fixed else row[END_TOKEN] - 2.0
            self._host.step(rows)
        self._host.flush()
        self._session.write()
        return [
            Answer(key=question.key, token_ids=tuple(request.output))
            for request, question in zip(asked, questions, strict=True)
        ]

    def close(self) -> None:
        """Ends the ledger."""
        self._host.close()


class VllmEngine:
    """vLLM in this process.

    Args:
        model: Directory of the model, or its name.
        arguments: Arguments of the engine.
        verbose: Whether vLLM's log is shown.
    """

    def __init__(self, model: str, arguments: Mapping[str, Any], *, verbose: bool = False) -> None:
        self._verbose = verbose
        with engine_failures(f"vLLM did not start with {model}", verbose=verbose):
            self._engine = OfflineEngine(model, arguments)

    def answer(self, questions: Sequence[Question]) -> list[Answer]:
        """Returns one answer to each question; vLLM batches them as it likes."""
        with engine_failures("vLLM failed while generating", verbose=self._verbose):
            generated = self._engine.generate(
                [self._engine.encode(question.prompt) for question in questions],
                max_tokens=questions[0].tokens,
                options=[question.options for question in questions],
                ignore_eos=questions[0].fixed_length,
            )
        if any(each.finish_reason == "interrupted" for each in generated):
            raise KeyboardInterrupt
        return [
            Answer(key=question.key, token_ids=each.tokens)
            for question, each in zip(questions, generated, strict=True)
        ]

    def close(self) -> None:
        """Ends the engine and its ledger."""
        self._engine.close()


@contextlib.contextmanager
def running(
    model: Path,
    variables: Mapping[str, str],
    *,
    arguments: Mapping[str, Any] | None = None,
    verbose: bool = False,
) -> Iterator[Engine]:
    """Yields an engine for the model of a study, and ends it.

    Args:
        model: Directory of the model, or one with :data:`TOY_MODEL`.
        variables: Environment of the engine.
        arguments: Arguments of vLLM's engine.
        verbose: Whether vLLM's log is shown.

    Raises:
        QRSamplerError: When it does not start.
    """
    if (model / TOY_MODEL).is_file():
        with environment(variables), contextlib.closing(ToyEngine()) as toy:
            yield toy
        return
    check_model(str(model))
    require_plugin()
    defaults = engine_defaults(str(model), verbose=verbose)
    with (
        environment(variables, defaults=defaults),
        stdout_reserved(),
        contextlib.closing(VllmEngine(str(model), arguments or {}, verbose=verbose)) as engine,
    ):
        yield engine
