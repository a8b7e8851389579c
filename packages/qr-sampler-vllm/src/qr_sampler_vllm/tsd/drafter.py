# SPDX-License-Identifier: Apache-2.0
"""Drafts the next tokens of every sequence; vLLM finds it through ``speculative_config``."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any, NamedTuple, Protocol

from qr_sampler import ConfigError, PluginError
from qr_sampler.host import TokenSequence
from qr_sampler_vllm.tsd.opt_in import check_opt_in
from qr_sampler_vllm.tsd.proposer_states import ProposerStates
from qr_sampler_vllm.tsd.request_shapes import NOTHING_KNOWN, RequestShapes, shapes_of
from qr_sampler_vllm.tsd.sequences import Sequences
from qr_sampler_vllm.tsd.settings import TSDSettings

__all__ = ["DraftRequest", "Drafting", "TSDDrafter"]


class DraftRequest(NamedTuple):
    """A sequence that is to get drafts."""

    name: str
    """Name of its request."""
    sequence: TokenSequence
    """The sequence that it generates."""
    position: int
    """Index of the token that the first draft is for."""
    state: Any
    """The proposer's state after its tokens so far."""
    length: int
    """Most drafts."""
    shapes: RequestShapes = NOTHING_KNOWN
    """What is known of its distributions."""


class Drafting(Protocol):
    """Makes drafts, each mode of verification in its own way."""

    def drafts(self, proposer: Any, requests: Sequence[DraftRequest]) -> list[list[int]]:
        """Returns the drafts of each request.

        Args:
            proposer: A ``Proposer``.
            requests: The sequences that are to get drafts.
        """


class TSDDrafter:
    """Proposes with the proposer of the deployment.

    Args:
        vllm_config: vLLM's ``VllmConfig``.

    Raises:
        ConfigError: When the worker that verifies is missing, or the proposer is missing, cannot be
            read, or has another vocabulary than the model.
    """

    def __init__(self, vllm_config: Any) -> None:
        check_opt_in(vllm_config)
        vocab_size = int(vllm_config.model_config.get_vocab_size())
        self._states = ProposerStates(load(TSDSettings.load(), vocab_size))
        self._length = int(vllm_config.speculative_config.num_speculative_tokens)
        self._shapes: dict[str, RequestShapes] = {}
        self._runner: Any = None
        self._sequences: Sequences | None = None
        self._drafting: Drafting | None = None

    def load_model(self, target_model: Any) -> None:
        """Does nothing; vLLM's CPU build insists on it."""

    def bind(self, model_runner: Any, sequences: Sequences, drafting: Drafting) -> None:
        """Connects the drafter to the engine.

        Args:
            model_runner: vLLM's model runner, which knows the names of requests.
            sequences: The sequences of the engine.
            drafting: Makes the drafts.
        """
        self._runner, self._sequences, self._drafting = model_runner, sequences, drafting

    def propose(
        self,
        sampled_token_ids: list[list[int]],
        num_tokens_no_spec: Any,
        token_ids_cpu: Any,
        slot_mappings: Any = None,
    ) -> list[list[int]]:
        """Returns the drafts of every row of the batch, at most ``num_speculative_tokens`` each.

        Args:
            sampled_token_ids: The tokens that the rows have emitted in this step.
            num_tokens_no_spec: Shape ``(B,)``, number of tokens per row, the new ones included.
            token_ids_cpu: Shape ``(B, M)``, these tokens.
            slot_mappings: Not needed.
        """
        if self._drafting is None or self._sequences is None:
            raise ConfigError("the drafter was not bound; give worker_cls with it")
        self._forget()
        by_row: dict[int, DraftRequest] = {}
        for row, sampled in enumerate(sampled_token_ids):
            name = self._runner.input_batch.req_ids[row]
            sequence = self._sequences.of(name)
            length = draft_limit(sequence, self._length) if sampled else 0
            if sequence is not None and length:
                tokens = token_ids_cpu[row, : int(num_tokens_no_spec[row])]
                state = self._states.after(name, len(tokens), partial(_from, tokens))
                request = self._runner.requests[name]
                by_row[row] = DraftRequest(
                    name,
                    sequence,
                    len(request.output_token_ids),
                    state,
                    length,
                    self._shapes_of(name, sequence, request.sampling_params),
                )
        with self._sequences.lock:
            requests = list(by_row.values())
            drafts = self._drafting.drafts(self._states.proposer, requests) if requests else []
        drafts_of = dict(zip(by_row, drafts, strict=True))
        return [drafts_of.get(row, []) for row in range(len(sampled_token_ids))]

    def _shapes_of(self, name: str, sequence: TokenSequence, params: Any) -> RequestShapes:
        if name not in self._shapes:
            self._shapes[name] = shapes_of(sequence.options.parameters, params)
        return self._shapes[name]

    def _forget(self) -> None:
        """Forgets sequences that have ended."""
        going_on = self._runner.requests.keys()
        self._states.forget_all_but(going_on)
        for name in self._shapes.keys() - going_on:
            del self._shapes[name]


def _from(tokens: Any, begin: int) -> list[int]:
    later: list[int] = tokens[begin:].tolist()
    return later


def draft_limit(sequence: TokenSequence | None, length: int) -> int:
    """Returns how many drafts *sequence* can use in its next step: at most *length*.

    One token always follows the last draft, so that the last of ``max_tokens`` needs none.
    """
    if sequence is None or sequence.ended or sequence.failure:
        return 0
    most = sequence.stop.max_tokens
    return length if most is None else max(min(length, most - len(sequence.tokens) - 1), 0)


def load(settings: TSDSettings, vocab_size: int) -> Any:
    """Returns the proposer of a deployment.

    Args:
        settings: Settings that name it.
        vocab_size: Number of tokens of the model.

    Raises:
        ConfigError: When there is none, it cannot be read, or it is for another vocabulary.
    """
    if settings.proposer is None:
        raise ConfigError(
            "QR_TSD_PROPOSER is not set; name the file of a saved proposer for this model, or "
            "'ngram', which needs none"
        )
    try:
        from qr_sampler_tsd import TSDError
        from qr_sampler_tsd.proposers.named import proposer_named
    except ImportError as error:
        raise ConfigError(
            "thermodynamic speculative decoding needs qr-sampler-tsd; install it in a clone of the "
            "project: pip install ./packages/qr-sampler-tsd"
        ) from error
    try:
        return proposer_named(settings.proposer, vocab_size)
    except (TSDError, PluginError) as error:
        raise ConfigError(f"QR_TSD_PROPOSER={settings.proposer}: {error}") from error
