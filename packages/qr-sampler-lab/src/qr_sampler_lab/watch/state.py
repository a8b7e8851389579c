# SPDX-License-Identifier: Apache-2.0
"""What is known of ledgers that are being watched."""

from __future__ import annotations

import math
from collections import Counter, deque
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, NamedTuple

from qr_sampler_cli.audit.schema.run_lines import Close, Gap, Genesis, Redacted
from qr_sampler_cli.audit.schema.token_lines import Discard, Draw, End, Forced, Token, Undecided
from qr_sampler_cli.audit.schema.token_lines import Sequence as SequenceLine
from qr_sampler_lab.analysis import EProcess
from qr_sampler_lab.report.adding.arm import STANDARD
from qr_sampler_lab.report.adding.arms import SELECTED_ROLES

__all__ = ["ShownToken", "WatchState"]

KEPT_SEQUENCES: Final = 512
"""Number of sequences whose text is kept, those that began last."""

SHOWN_TOKENS: Final = 400
"""Number of latest tokens that are kept of each."""

_LARGEST: Final = 1e12
_MOST_SEQUENCES: Final = 2**14
_MOST_DRAWS: Final = 2**12
_MOST_LATENCIES: Final = 2**10


class ShownToken(NamedTuple):
    """A token of the text."""

    token_id: int
    u: float
    """Negative for one that no entropy decided."""
    fallback: bool


class WatchState:
    """Takes in records as they come, in the order of the files.

    Args:
        tau: Scale of the shifts that the e-process bets on.
        alpha: Its error probability.
    """

    def __init__(self, *, tau: float = 0.1, alpha: float = 0.05) -> None:
        self.counts: Counter[str] = Counter()
        """How many there are: ``tokens``, ``sequences``, ``draws``, ``fallback``, ``discards``,
        ``forced``, ``undecided``, ``ended``, ``lost``, ``redacted``."""
        self.evidence = EProcess(tau=tau, alpha=alpha)
        """Of the scores of all tokens but accepted drafts against the law of ideal bytes."""
        self.is_sealed = False
        """Whether a ledger belongs to a sealed plan, or does not say so for want of a genesis: then
        only counts may be shown."""
        self.has_baseline = False
        """Whether u refers to a baseline, so that ideal bytes are no law to compare with."""
        self.texts: dict[str, deque[ShownToken]] = {}
        """By sequence, its latest tokens; the sequences in the order in which they began."""
        self.keys: dict[str, str] = {}
        """By sequence, the key of its request."""
        self.sources: Counter[str] = Counter()
        """By source, how many draws it has answered."""
        self.latencies_ms: deque[float] = deque(maxlen=_MOST_LATENCIES)
        """Of the latest draws."""
        self.models: dict[str, str] = {}
        """By run, its model."""
        self.health: list[str] = []
        """What the operator ought to know, the latest last."""
        self.open_files: set[Path] = set()
        """Files that have begun and not ended."""
        self._begun: set[Path] = set()
        self._scores: list[float] = []
        self._amplifiers: dict[str, str] = {}
        self._fallback: dict[int, bool] = {}
        self._handlers: dict[type, Callable[[Any, Path], object]] = {
            Genesis: self._begin,
            SequenceLine: self._sequence,
            Draw: self._draw,
            Token: self._token,
            Forced: self._unchosen,
            Undecided: self._unchosen,
            Discard: lambda line, file: self.counts.update(discards=1),
            End: lambda line, file: self.counts.update(ended=1),
            Redacted: lambda line, file: self.counts.update(redacted=1),
            Gap: self._gap,
            Close: self._close,
        }

    def take(self, record: Any, file: Path) -> None:
        """Takes in a record of a file."""
        if file not in self._begun:
            self._begun.add(file)
            self.is_sealed = self.is_sealed or not isinstance(record, Genesis)
        handler = self._handlers.get(type(record))
        if handler is not None:
            handler(record, file)

    def settle(self) -> None:
        """Counts the scores of the tokens that were taken in; many at once cost little more."""
        self.evidence.add(self._scores)
        self._scores.clear()

    def _begin(self, line: Genesis, file: Path) -> None:
        self.is_sealed = self.is_sealed or line.seal is not None
        self.models[line.run_id] = line.model
        self.open_files.add(file)

    def _sequence(self, line: SequenceLine, file: Path) -> None:
        self.counts["sequences"] += line.sequence not in self.keys
        amplifier = line.options.get("signal_amplifier_type")
        _keep(self._amplifiers, line.sequence, str(amplifier), _MOST_SEQUENCES)
        _keep(self.keys, line.sequence, line.request_key, _MOST_SEQUENCES)

    def _draw(self, line: Draw, file: Path) -> None:
        self.counts["draws"] += 1
        self.sources[line.source] += 1
        self.latencies_ms.append((line.t_received_ns - line.t_request_ns) / 1e6)
        _keep(self._fallback, line.draw, line.fallback, _MOST_DRAWS)
        if line.fallback and line.fallback_reason:
            self._tell(f"fallback to {line.source}: {line.fallback_reason}")

    def _token(self, line: Token, file: Path) -> None:
        fallback = self._fallback.get(-1 if line.draw is None else line.draw, False)
        if line.uniforms is not None:
            fallback = any(each.fallback for each in line.uniforms)
        self.counts["tokens"] += 1
        self.counts["fallback"] += fallback
        self.has_baseline = self.has_baseline or bool(line.baseline)
        amplifier = line.amplifier or self._amplifiers.get(line.sequence, "")
        standard = amplifier in STANDARD
        score = line.statistic if standard else (line.u - 0.5) * math.sqrt(12.0)
        if abs(score) > _LARGEST:
            self._tell(f"no amplifier makes a statistic of {score:g}")
        elif line.role not in SELECTED_ROLES:
            self._scores.append(score)
        self._show(line.sequence, ShownToken(line.token_id, line.u, fallback))

    def _unchosen(self, line: Forced | Undecided, file: Path) -> None:
        self.counts["forced" if isinstance(line, Forced) else "undecided"] += 1
        self._show(line.sequence, ShownToken(line.token_id, -1.0, fallback=False))
        self._tell(f"a token without entropy: {line.reason}")

    def _show(self, sequence: str, token: ShownToken) -> None:
        if sequence not in self.texts:
            _keep(self.texts, sequence, deque(maxlen=SHOWN_TOKENS), KEPT_SEQUENCES)
        self.texts[sequence].append(token)

    def _gap(self, line: Gap, file: Path) -> None:
        self.counts["lost"] += sum(line.missing.values())
        self._tell(f"lines are missing: {line.reason}")

    def _close(self, line: Close, file: Path) -> None:
        self.open_files.discard(file)

    def _tell(self, what: str) -> None:
        if not self.health or self.health[-1] != what:
            self.health.append(what)
        del self.health[:-5]

    @property
    def z(self) -> float:
        """The z-score of the mean so far; NaN before the first token."""
        result = self.evidence.result()
        return result.score_sum / math.sqrt(result.n) if result.n else math.nan

    def latency_ms(self, share: float) -> float:
        """Returns the latency that a share of the latest draws does not exceed."""
        if not self.latencies_ms:
            return math.nan
        ordered = sorted(self.latencies_ms)
        return ordered[min(int(share * len(ordered)), len(ordered) - 1)]


def _keep(kept: dict[Any, Any], key: Any, value: Any, most: int) -> None:
    """Keeps a value as the latest of at most *most*."""
    kept.pop(key, None)
    kept[key] = value
    if len(kept) > most:
        del kept[next(iter(kept))]
