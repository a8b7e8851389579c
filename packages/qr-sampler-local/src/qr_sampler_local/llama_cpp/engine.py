# SPDX-License-Identifier: Apache-2.0
"""llama.cpp behind the protocol of engines."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from qr_sampler import ConfigError, EntropySource, Settings
from qr_sampler.errors import shown
from qr_sampler_local.engines.protocol import EmittedToken, FinishReason, Generated, TokenListener
from qr_sampler_local.llama_cpp.chat_template import chat_prompt
from qr_sampler_local.llama_cpp.sampler import LlamaCppSampler
from qr_sampler_local.llama_cpp.turn import Turn
from qr_sampler_local.llama_cpp.vocabulary import Vocabulary, library_version

__all__ = ["LlamaCppEngine"]

CONTEXT_TOKENS: Final = 4096
"""Context unless ``n_ctx`` says otherwise, if the model was trained for as much: that of many
models takes more memory than a laptop has."""

NOT_TAKEN: Final = frozenset(
    ("self", "kwargs", "model_path", "logits_all", "draft_model", "vocab_only", "embedding")
)
"""Parameters of ``Llama`` that are no arguments of the engine."""

_FINISH_REASONS: Final[Mapping[str, FinishReason]] = {
    "stop": "stop",
    "forced": "stop",
    "length": "length",
}
"""By those of a sequence; any other has not ended by itself."""


class LlamaCppEngine:
    """A GGUF model in this process. A :class:`~qr_sampler_local.engines.LocalEngine`.

    Several prompts are generated from one after the other: a ``Llama`` has room for one.

    Args:
        model: Path of the ``.gguf`` file.
        settings: The deployment's settings; those of the environment if not given.
        arguments: Those of ``llama_cpp.Llama``, by name.
        sources: Sources of the caller's own, as for a
            :class:`~qr_sampler_local.llama_cpp.LlamaCppSampler`.

    Raises:
        ConfigError: When there is no such file, llama.cpp cannot load it, or an argument is
            unknown.
    """

    def __init__(
        self,
        model: str,
        *,
        settings: Settings | None = None,
        arguments: Mapping[str, Any] | None = None,
        sources: Mapping[str, EntropySource] | Iterable[EntropySource] | None = None,
    ) -> None:
        self.llama = _loaded(model, arguments or {})
        """The ``Llama``."""
        self._vocabulary = Vocabulary(self.llama)
        self._context = self._vocabulary.context
        if "n_ctx" not in (arguments or {}):
            self._context = min(self._context, self._vocabulary.trained_context)
        self._closed = False
        try:
            self._sampler = LlamaCppSampler(self.llama, settings, sources=sources)
        except BaseException:
            self.llama.close()
            raise

    @property
    def name(self) -> str:
        """Its name as users type it."""
        return "llama-cpp"

    @property
    def version(self) -> str:
        """Version of llama-cpp-python."""
        return library_version()

    @property
    def device(self) -> str:
        """``"gpu"`` where layers are on one, else ``"cpu"``."""
        import llama_cpp

        offloads = bool(llama_cpp.llama_supports_gpu_offload())
        return "gpu" if offloads and self.llama.model_params.n_gpu_layers != 0 else "cpu"

    def encode(self, text: str) -> list[int]:
        """Returns the tokens of a text to continue, with those that the model begins texts with."""
        tokens: list[int] = self.llama.tokenize(text.encode(), add_bos=True, special=False)
        return tokens

    def encode_chat(self, messages: Sequence[Mapping[str, str]]) -> list[int]:
        """Returns the tokens of a conversation, up to where the model's next reply begins.

        Raises:
            ConfigError: When the file has no chat template, or its template refuses the messages.
        """
        text, begins = chat_prompt(self.llama, self._vocabulary, messages)
        tokens: list[int] = self.llama.tokenize(text.encode(), add_bos=not begins, special=True)
        return tokens

    def decode(self, tokens: Sequence[int]) -> str:
        """Returns the text of tokens, without those that only structure it."""
        return self._bytes_of(tokens).decode("utf-8", errors="replace")

    def spell(self, token_id: int) -> str:
        """Returns the text of one token, or its entry in the vocabulary if that is no whole text.

        A token may be a part of a character.
        """
        try:
            return self._bytes_of([token_id]).decode("utf-8") or self._vocabulary.entry(token_id)
        except UnicodeDecodeError:
            return self._vocabulary.entry(token_id)

    def generate(
        self,
        prompts: Sequence[Sequence[int]],
        *,
        max_tokens: int,
        options: Sequence[Mapping[str, object]],
        on_token: TokenListener | None = None,
    ) -> list[Generated]:
        """Returns what was emitted for each prompt, as in the protocol.

        A text that fills the context ends there.
        """
        rooms = [self._room(prompt) for prompt in prompts]
        for each in options:
            self._sampler.check(each)
        made: list[Generated] = []
        interrupted = False
        for index, (prompt, keys, room) in enumerate(zip(prompts, options, rooms, strict=True)):
            if interrupted:
                made.append(_not_begun(keys))
                continue
            turn = self._sampler.turn(prompt, keys, max_tokens=min(max_tokens, room))
            interrupted = _run(turn, index, on_token)
            made.append(_generated(turn))
        return made

    def close(self) -> None:
        """Ends the records and frees the model. A second call does nothing."""
        if not self._closed:
            self._closed = True
            self._sampler.close()
            self.llama.close()

    def _bytes_of(self, tokens: Sequence[int]) -> bytes:
        text: bytes = self.llama.detokenize(list(tokens))
        return text

    def _room(self, prompt: Sequence[int]) -> int:
        """Returns how many tokens a context has room for after *prompt*."""
        room = self._context - len(prompt)
        if room < 1 or not prompt:
            raise ConfigError(
                f"a prompt of {len(prompt)} tokens: pass at least one, and fewer than the "
                f"{self._context} of the context; the argument n_ctx sets that"
            )
        return room


def _run(turn: Turn, index: int, on_token: TokenListener | None) -> bool:
    """Hands out the tokens of *turn* and returns whether the user has interrupted it."""
    handed_over = True
    try:
        for _ in turn.tokens():
            handed_over = on_token is None
            if on_token is not None and turn.sequence.outcome is not None:
                token = EmittedToken.of(index, turn.sequence.outcome)
                handed_over = True
                on_token(token)
    except KeyboardInterrupt:
        return True
    finally:
        turn.close(handed_over=handed_over)
    return False


def _generated(turn: Turn) -> Generated:
    """Returns what was emitted in *turn*, which is over."""
    sequence = turn.sequence
    reason = sequence.finish_reason
    return Generated(
        sequence=sequence.name,
        request_key=sequence.request_key,
        tokens=tuple(sequence.tokens),
        finish_reason=_FINISH_REASONS.get(reason, "interrupted"),
    )


def _not_begun(options: Mapping[str, object]) -> Generated:
    """Returns what there is of a prompt whose turn never came."""
    key = str(options.get("qr_request_key", ""))
    return Generated(sequence="", request_key=key, tokens=(), finish_reason="interrupted")


def _loaded(model: str, arguments: Mapping[str, Any]) -> Any:
    """Returns a ``Llama``."""
    from llama_cpp import Llama

    known = sorted(inspect.signature(Llama.__init__).parameters.keys() - NOT_TAKEN)
    for name in arguments:
        if name not in known:
            raise ConfigError(
                f"{name}={shown(arguments[name])}: unknown argument; llama.cpp takes "
                f"{', '.join(known)}"
            )
    if not Path(model).is_file():
        raise ConfigError(f"{model}: no such file; name a model in the format GGUF")
    try:
        return Llama(model, **{"n_ctx": CONTEXT_TOKENS, "verbose": False, **arguments})
    # Files of a model can be wrong in any way, and so can arguments; the reason is passed on.
    except Exception as error:
        reason = f"{type(error).__name__}: {error}"
        raise ConfigError(f"llama.cpp cannot load {model}: {reason}") from error
