# SPDX-License-Identifier: Apache-2.0
"""Rung 6 as the auditor sees it: lines in, findings out."""

from __future__ import annotations

from array import array
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from qr_sampler.errors import ConfigError
from qr_sampler_cli.audit.findings import Rung
from qr_sampler_cli.audit.rederivation.gathering import Gathering
from qr_sampler_cli.audit.rederivation.judging.evidence import Evidence
from qr_sampler_cli.audit.rederivation.judging.tolerance import LIMITS, rule_for
from qr_sampler_cli.audit.rederivation.model_files import compare_files
from qr_sampler_cli.audit.rederivation.prompts import Prompts, prompt_digest
from qr_sampler_cli.audit.rederivation.rescoring import LogitsOf, Rescoring
from qr_sampler_cli.audit.rederivation.transcripts import Transcript
from qr_sampler_cli.audit.schema.run_lines import Genesis, Model
from qr_sampler_cli.audit.schema.token_lines import (
    Emission,
    End,
    Forced,
    Token,
    Undecided,
)
from qr_sampler_cli.audit.schema.token_lines import (
    Sequence as SequenceLine,
)

__all__ = ["ModelUnderAudit", "Rederivation"]

_SERVER: Final = "server"
"""The amplifier whose u the far side has made."""


@dataclass(slots=True, kw_only=True)
class ModelUnderAudit:
    """What re-derives tokens."""

    model: LogitsOf
    """Gives the logits."""
    dtype: str
    """What it computes in."""
    directory: Path | None = None
    """Where its files are."""
    prompts: Path | None = None
    """A file of prompts that was named."""
    progress: Callable[[], object] = field(default=lambda: None)
    """Called for every token that has been dealt with."""


class Rederivation:
    """Derives the tokens of one run again.

    Args:
        rung: Takes the findings.
        under_audit: The model, and what goes with it; without one nothing can be said.
    """

    def __init__(self, rung: Rung, under_audit: ModelUnderAudit | None) -> None:
        self._derivation = None if under_audit is None else _Derivation(rung, under_audit)
        self.handlers: Mapping[type, Callable[[Any, int], object]] = {}
        """What takes in the lines of each kind that matters, with their places."""
        if self._derivation is None:
            rung.cannot_say("whether the model gives these tokens: it needs the model")
        else:
            self.handlers = self._derivation.handlers()

    def begin_file(self, ledger: Path) -> None:
        """Goes on with another file of the run."""
        if self._derivation is not None:
            self._derivation.prompts.add_sidecar(ledger)

    def finish(self) -> None:
        """Judges everything, when there are no more lines."""
        if self._derivation is not None:
            self._derivation.finish()


class _Derivation:
    def __init__(self, rung: Rung, under_audit: ModelUnderAudit) -> None:
        self._rung = rung
        self._under_audit = under_audit
        self.prompts = Prompts(under_audit.prompts)
        self._evidence = Evidence(rung, rule_for(under_audit.dtype))
        self._rescoring = Rescoring(rung, under_audit.model, self._evidence, under_audit.progress)
        self._gathering = Gathering(rung, self.prompts.know, self._over)
        self._run_id = ""
        self._model_told = False

    def handlers(self) -> dict[type, Callable[[Any, int], object]]:
        gathering = self._gathering
        return {
            Genesis: self._genesis,
            Model: self._model,
            SequenceLine: gathering.begin,
            Token: gathering.token,
            Forced: gathering.unchosen,
            Undecided: gathering.unchosen,
            Emission: gathering.settle,
            End: gathering.end,
        }

    def _genesis(self, line: Genesis, place: int) -> None:
        self._run_id = line.run_id
        dtype, quantization = line.host.get("dtype"), line.host.get("quantization")
        if dtype not in LIMITS:
            self._rung.note("the data type of the engine is not recorded; float32 is assumed")
        if quantization:
            self._rung.note(f"the engine has quantized the model: {str(quantization)[:40]}")
        # What quantized kernels round is as much as half precision does.
        names = (self._under_audit.dtype, str(dtype), "bfloat16" if quantization else "")
        self._evidence.rule = rule_for(*names)

    def _over(self, transcript: Transcript) -> None:
        line = transcript.line
        prompt = self.prompts.find(line)
        if prompt is None or not len(prompt):
            self._rung.cannot_say(
                "tokens whose prompt is not here", transcript.place, len(transcript)
            )
        elif self._is_the_prompt(line, prompt, transcript.place):
            transcript.prompt = self._checked(line, prompt)
            if line.options["signal_amplifier_type"] == _SERVER:
                self._rung.cannot_say(
                    "whether bytes give u: the source has made it itself",
                    transcript.place,
                    len(transcript),
                )
            self._rescoring.add(transcript)

    def _is_the_prompt(self, line: SequenceLine, prompt: array[int], place: int) -> bool:
        """Returns whether a prompt can be that of a sequence; says so if not."""
        if line.prompt_tokens not in (None, len(prompt)):
            self._rung.fail(
                place,
                f"its prompt has {line.prompt_tokens} tokens, and the one given for "
                f"{line.request_key[:80]!r} {len(prompt)}",
            )
            return False
        salt = self.prompts.salt(self._run_id)
        if not line.prompt_digest:
            self._rung.note_once("that prompts are those of the run, only the tokens show")
        elif salt is None:
            self._rung.cannot_say("whether prompts are those of the run: there is no salt", place)
        elif prompt_digest(salt, prompt) != line.prompt_digest:
            self._rung.fail(
                place, f"the prompt given for {line.request_key[:80]!r} has another digest"
            )
            return False
        return True

    def _checked(self, line: SequenceLine, prompt: array[int]) -> array[int]:
        vocab_size = self._under_audit.model.vocab_size
        if max(prompt) >= vocab_size:
            raise ConfigError(
                f"the prompt of {line.request_key[:80]!r} has the token {max(prompt)}, and the "
                f"model {vocab_size:,} tokens; name the model, or the prompts, of this run"
            )
        return prompt

    def _model(self, line: Model, place: int) -> None:
        self._model_told = True
        if self._under_audit.directory is not None and isinstance(line.files, dict):
            compare_files(line.files, self._under_audit.directory, self._rung, place)

    def finish(self) -> None:
        self._gathering.finish()
        self._rescoring.flush()
        self._evidence.judge()
        if not self._model_told:
            self._rung.note("no line tells the files of the model: that it is this, tokens show")
        if not self._evidence.count and not self._rung.failed and not self._rung.unsaid:
            self._rung.cannot_say("whether the model gives the tokens: there are none")
