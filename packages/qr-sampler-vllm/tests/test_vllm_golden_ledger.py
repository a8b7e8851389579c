# SPDX-License-Identifier: Apache-2.0
"""The ledger of a fixed script, field for field, under each runner and with drafts of TSD.

Source and script are seeded and clocks stand still, so that the digest of the lines changes only
with what the plugin writes. The genesis line, which holds versions and paths, is left out.
"""

from __future__ import annotations

import hashlib
import json
import random
import sys
import time
import uuid
from collections.abc import Callable, Iterable
from functools import partial
from itertools import count
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from qr_sampler import EntropySource, EntropyUnavailableError
from qr_sampler.host import NumpyLogits
from qr_sampler.testing import EmittedText, check_ledger, records_in
from qr_sampler_tsd import TSUAdapter, craft_relative_psi
from qr_sampler_tsd.proposers import BigramProposer
from qr_sampler_tsd.tsu import PBitTreeTSU
from qr_sampler_vllm.engine import session
from qr_sampler_vllm.engine.session import EngineSession
from qr_sampler_vllm.runners import draft_rows
from qr_sampler_vllm.runners.v1 import RunnerV1
from qr_sampler_vllm.runners.v2 import RunnerV2
from qr_sampler_vllm.testing import engine_config, sampling_params
from qr_sampler_vllm.tsd.drafter import DraftRequest
from qr_sampler_vllm.tsd.sequences import RequestRows, Sequences
from qr_sampler_vllm.tsd.verification import canonical
from qr_sampler_vllm.tsd.verification.canonical import Canonical
from qr_sampler_vllm.tsd.verification.exact_match import ExactMatch

VOCAB = 16
STEPS = 200


class SeededSource(EntropySource):
    """Hands out the bytes of a generator; fails when a test has it fail."""

    name = "seeded"
    blocks = False

    def __init__(self, name: str, seed: int) -> None:
        self.name = name
        self.fails = False
        self.drawn = 0
        self._bytes = random.Random(seed).randbytes

    def get_random_bytes(self, n: int) -> bytes:
        if self.fails:
            raise EntropyUnavailableError(self.name, "unplugged")
        self.drawn += n
        return self._bytes(n)


def freeze(monkeypatch: pytest.MonkeyPatch) -> None:
    """Stops the clocks and numbers the names, in whichever module has them by name."""
    numbers = count(1)
    replacements = [
        (time.time_ns, lambda: 1_700_000_000_000_000_000),
        (time.monotonic_ns, lambda: 1_000_000_000),
        (uuid.uuid4, lambda: uuid.UUID(int=next(numbers))),
    ]
    for name, module in list(sys.modules.items()):
        if name in {"time", "uuid"} or name.startswith("qr_sampler"):
            for original, replacement in replacements:
                for key in [key for key, own in vars(module).items() if own is original]:
                    monkeypatch.setattr(module, key, replacement)


@pytest.fixture
def sources(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> dict[str, SeededSource]:
    """The sources of an engine without vLLM and torch that writes a ledger."""
    found = {name: SeededSource(name, seed) for seed, name in enumerate(("system", "other"))}
    monkeypatch.setenv("QR_LEDGER_DIR", str(tmp_path))
    monkeypatch.setenv("QR_SAMPLE_COUNT", "4")
    monkeypatch.setenv("QR_MAX_KS_DISTANCE", "1")
    monkeypatch.setenv("QR_REQUEST_ENTROPY_SOURCES", "other")
    monkeypatch.setenv("QR_FALLBACK_MODE", "end_request")
    monkeypatch.delenv("VLLM_ENABLE_V1_MULTIPROCESSING", raising=False)
    monkeypatch.setattr(
        "qr_sampler.host.session.sampling_session.configured_sources",
        lambda *_: found,
    )
    monkeypatch.setattr("qr_sampler.components.pairing._integrates", lambda *_: False)
    monkeypatch.setattr(session, "TensorLogits", lambda most_rows: NumpyLogits())
    monkeypatch.setattr(session, "warm_up", lambda **_: None)
    monkeypatch.setattr(draft_rows, "_on_host", lambda context: context.table)
    monkeypatch.setattr(canonical, "TensorLogits", lambda *_, **__: NumpyLogits())
    freeze(monkeypatch)
    return found


def speculation(drafts: int) -> SimpleNamespace:
    return SimpleNamespace(rejection_sample_method="standard", num_speculative_tokens=drafts)


def params(script: random.Random, key: int) -> SimpleNamespace:
    """The request number *key*."""
    extra: dict[str, Any] = {"qr_request_key": f"request {key}", "qr_trial": key}
    if script.random() < 0.2:
        extra["qr_entropy_source"] = "other"
    if script.random() < 0.1:
        extra["qr_bypass"] = 1
    if script.random() < 0.3:
        extra["qr_sample_count"] = script.choice((8, 256))
    if script.random() < 0.3:
        extra["qr_temperature_strategy"] = script.choice(("edt", "varentropy"))
    return sampling_params(
        extra_args=extra,
        stop_token_ids=(5,) if script.random() < 0.3 else (),
        eos_token_id=9,
        max_tokens=script.randrange(2, 12),
    )


def logits_of(script: random.Random, rows: int) -> Any:
    """Rows of which some cannot be decided."""
    logits = np.random.default_rng(script.randrange(2**32)).normal(size=(rows, VOCAB))
    logits[:, 9] -= 2.0
    for line in range(rows):
        if script.random() < 0.02:
            logits[line] = -np.inf
    return logits.astype(np.float32)


def unplug(script: random.Random, sources: dict[str, SeededSource]) -> None:
    """Decides which sources fail in the next step."""
    for source in sources.values():
        source.fails = script.random() < 0.03


NOT_OF_A_RECORD = {"n", "prev", "draw", "offset"}
"""What lines have beside the fields of the records that they are joined to."""


def digest(lines: Iterable[dict[str, Any]]) -> str:
    """Returns the digest of *lines*.

    Numbers count with six digits, because their last ones differ between machines.
    """
    text = json.dumps(list(lines))
    parsed = json.loads(text, parse_float=lambda number: f"{float(number):.6g}")
    return hashlib.sha256(json.dumps(parsed).encode()).hexdigest()[:16]


NOT_OF_A_LINE = {"n", "prev", "head", "blind", "draw", "wall_time_ns"}
"""Fields of lines that differ from run to run."""


def found_in(directory: Path) -> tuple[str, int, str, int]:
    """Returns the digest of all records and their number, then the same of all lines.

    Heads are left out, which follow from all digits, blinds, which are random, and clocks, which
    do not stand still. The order of lines, and the numbers of draws, which follow from it, count
    in records only: what is written at once depends on how soon a thread wakes up.
    """
    (file,) = directory.glob("*.jsonl")
    records = [without(line, NOT_OF_A_RECORD) for line in records_in(file)[1:]]
    lines = [json.loads(line) for line in file.read_bytes().splitlines()]
    kept = [line for line in lines if line["kind"] not in ("genesis", "clock")]
    written = sorted((without(line, NOT_OF_A_LINE) for line in kept), key=json.dumps)
    return digest(records), len(records), digest(written), len(written)


def without(line: dict[str, Any], names: set[str]) -> dict[str, Any]:
    """Returns *line* without *names*, nor those of its numbers' draws if these are among them."""
    left = {name: value for name, value in line.items() if name not in names}
    if left.get("uniforms") and "draw" in names:
        left["uniforms"] = [without(one, {"draw", "offset"}) for one in left["uniforms"]]
    return left


def over(own: SimpleNamespace, output: list[int], *, faithful: bool) -> bool:
    """Returns whether vLLM has ended a request; without *faithful*, it misses tokens that do."""
    ends = {*own.stop_token_ids, own.eos_token_id}
    return len(output) >= own.max_tokens or (faithful and not ends.isdisjoint(output))


def text_of(own: SimpleNamespace, output: list[int]) -> EmittedText:
    """Returns what vLLM has emitted for a request: it ends with the first token that ends it."""
    ends = {*own.stop_token_ids, own.eos_token_id}
    end = next((index + 1 for index, token in enumerate(output) if token in ends), None)
    key = own.extra_args["qr_request_key"]
    return EmittedText(
        request_key=key,
        trial=str(own.extra_args["qr_trial"]),
        tokens=tuple(output[:end][: own.max_tokens]),
        settled=end is not None or len(output) >= own.max_tokens,
    )


def emitted(outputs: Iterable[tuple[SimpleNamespace, list[int]]]) -> list[EmittedText]:
    """Returns what was emitted for all requests but those that are left to vLLM."""
    return [text_of(own, out) for own, out in outputs if "qr_bypass" not in own.extra_args]


def play_v1(
    sources: dict[str, SeededSource], *, overlapping: bool = False, faithful: bool = False
) -> list[EmittedText]:
    """Adds, aborts, preempts, resumes and steps, in a batch without gaps."""
    script = random.Random(11)
    runner = RunnerV1(engine_config(max_model_len=60, async_scheduling=overlapping))
    batch: list[tuple[Any, list[int]]] = []
    texts: dict[int, tuple[Any, list[int]]] = {}
    waiting: list[tuple[Any, list[int]]] = []
    for step in range(STEPS):
        removed: list[int] = []
        gone = [
            index for index, (own, out) in enumerate(batch) if over(own, out, faithful=faithful)
        ]
        if script.random() < 0.1 and batch:
            gone.append(script.randrange(len(batch)))
        for index in sorted(set(gone), reverse=True):
            own, out = batch.pop(index)
            removed.append(index)
            if not over(own, out, faithful=faithful) and script.random() < 0.6:
                waiting.append((own, out))
        moved = [
            (origin, origin - sum(index < origin for index in removed))
            for origin in range(len(batch) + len(removed))
            if origin not in removed and any(index < origin for index in removed)
        ]
        added = []
        while len(batch) < 4 and script.random() < 0.5:
            if waiting and script.random() < 0.5:
                own, out = waiting.pop()
                # What was on the way when the sequence left may be dropped.
                out = out[: len(out) - (0 if faithful else script.randrange(2))]
            else:
                own, out = params(script, 1000 + step * 10 + len(batch)), []
            added.append((len(batch), own, [1, 2, 3], out))
            batch.append((own, out))
            texts[id(own)] = (own, out)
        update = SimpleNamespace(
            batch_size=len(batch) - len(added),
            removed=removed,
            added=(),
            moved=[(a, b, SimpleNamespace(name="UNIDIRECTIONAL")) for a, b in moved],
        )
        runner.update_state(update if removed else None)
        if added:
            runner.update_state(
                SimpleNamespace(batch_size=len(batch), removed=[], added=added, moved=[])
            )
        unplug(script, sources)
        rows = logits_of(script, len(batch))
        runner.apply(rows)
        for line, (_, out) in enumerate(batch):
            if script.random() < 0.95:
                out.append(int(np.argmax(rows[line])))
        if script.random() < 0.2:
            runner.flush()
        if script.random() < 0.1:
            runner.write_overdue()
    runner.close()
    runner.session.close()
    return emitted(texts.values())


def play_v2(
    sources: dict[str, SeededSource],
    *,
    drafts: int = 0,
    overlapping: bool = False,
    faithful: bool = False,
) -> list[EmittedText]:
    """Slots that are taken over without notice, with drafts of which some are right."""
    script = random.Random(12)
    size = 4
    states = SimpleNamespace(
        max_num_reqs=size,
        prompt_len=SimpleNamespace(np=np.zeros(size, int)),
        prefill_len=SimpleNamespace(np=np.zeros(size, int)),
        all_token_ids=SimpleNamespace(gpu=np.zeros((size, 200), np.int32)),
    )
    engine = engine_config(
        max_model_len=60,
        async_scheduling=overlapping,
        speculative_config=speculation(drafts) if drafts else None,
    )
    runner = RunnerV2(engine, states)
    slots: dict[int, tuple[Any, list[int]]] = {}
    texts: dict[int, tuple[Any, list[int]]] = {}
    waiting: list[tuple[Any, list[int]]] = []
    leaving: list[tuple[Any, list[int]]] = []
    for step in range(STEPS):
        for slot in list(slots):
            own, out = slots[slot]
            if over(own, out, faithful=faithful):
                del slots[slot]
            elif script.random() < 0.05:
                if script.random() < 0.6:
                    (leaving if faithful else waiting).append(slots[slot])
                del slots[slot]
        for slot in set(range(size)) - set(slots):
            if script.random() < 0.6:
                if waiting and script.random() < 0.5:
                    own, out = waiting.pop()
                else:
                    own, out = params(script, 1000 + step * 10 + slot), []
                states.prompt_len.np[slot] = 3
                states.prefill_len.np[slot] = 3 + len(out)
                states.all_token_ids.gpu[slot, : 3 + len(out)] = [1, 2, 3, *out]
                runner.add_request(slot, own)
                slots[slot] = texts[id(own)] = (own, out)
        # vLLM resumes nothing in the step in which it preempts it.
        waiting += leaving
        leaving.clear()
        runner.apply_staged_writes()
        order = script.sample(sorted(slots), len(slots))
        unplug(script, sources)
        table: list[list[int]] = []
        for slot in order:
            inputs = [0, *(script.randrange(-1, VOCAB) for _ in range(drafts))]
            length = 3 + len(slots[slot][1])
            table += [
                [slot, place, length - 1 + place, token] for place, token in enumerate(inputs)
            ]
        rows = logits_of(script, len(table))
        chosen = np.argsort(-rows, axis=1)[:, 0]
        for line in range(1, len(table)):
            # Half of the drafts are likely.
            if table[line][1] and table[line][3] >= 0 and script.random() < 0.5:
                table[line][3] = int(chosen[line - 1])
        if drafts:
            context = SimpleNamespace(table=table)
        else:
            context = SimpleNamespace(
                idx_mapping_np=np.array(order, int),
                seq_lens_upper_bound_np=np.array([row[2] + 1 for row in table], int),
            )
        runner.apply(rows, context)  # type: ignore[arg-type]
        stands: dict[int, int | None] = {}
        for line, (slot, place, _, token) in enumerate(table):
            if place and (token < 0 or stands.get(slot) != token):
                stands[slot] = None
                continue
            stands[slot] = int(np.argmax(rows[line]))
            if not over(*slots[slot], faithful=faithful):
                slots[slot][1].append(int(np.argmax(rows[line])))
        if script.random() < 0.2:
            runner.flush()
        if script.random() < 0.1:
            runner.write_overdue()
    runner.close()
    runner.session.close()
    return emitted(texts.values())


def play_tsd(
    sources: dict[str, SeededSource],
    *,
    mode: str,
    unit: TSUAdapter | None = None,
    faithful: bool = False,
) -> list[EmittedText]:
    """Drafts of a proposer, verified in one of the two modes."""
    script = random.Random(13)
    engine = engine_config(max_model_len=60, speculative_config=speculation(2))
    own_session = EngineSession(engine, "TSD")
    runner = SimpleNamespace(requests={}, input_batch=SimpleNamespace(req_ids=[]))

    class Weakly(SimpleNamespace):
        pass

    owner = Weakly(**vars(runner))
    sequences = Sequences(engine, own_session, owner)
    verification: Any = (
        ExactMatch(own_session)
        if mode == "exact_match"
        else Canonical(own_session, sequences, "block", unit=unit)
    )
    proposer = BigramProposer.from_payloads(craft_relative_psi([1.0 / VOCAB] * VOCAB, 4), {})
    live: dict[str, RequestRows] = {}
    texts: dict[str, RequestRows] = {}
    for step in range(STEPS // 2):
        for name in list(live):
            sequence = live[name].sequence
            if sequence is None or sequence.ended or script.random() < 0.05:
                if sequence is not None:
                    own_session.record(sequence.end("departed"))
                del live[name]
        while len(live) < 3:
            own = params(script, 1000 + step * 10 + len(live))
            name = f"r{step}-{len(live)}"
            live[name] = texts[name] = RequestRows(name, own_session.admit(own, 3), own, 0, [])
        unplug(script, sources)
        wants = [
            DraftRequest(name, row.sequence, len(row.output), proposer.start([1]), 2)
            for name, row in live.items()
            if row.sequence is not None and not row.sequence.failure
        ]
        drafts = verification.drafts(proposer, wants) if step and wants else []
        by_name = dict(zip([one.name for one in wants], drafts, strict=False))
        rows, first = [], 0
        for name, row in live.items():
            given = by_name.get(name, [])
            rows.append(RequestRows(name, row.sequence, row.params, first, row.output, given))
            first += 1 + len(given)
        verified = verification.verify(logits_of(script, first), rows)
        own_session.record(verified.records)
        for row, tokens in zip(rows, verified.tokens, strict=True):
            row.output.extend(tokens)
            if row.sequence is not None:
                own_session.record(row.sequence.go_on(1))
    for row in live.values():
        if row.sequence is not None:
            own_session.record(row.sequence.end("closed"))
    own_session.publish()
    own_session.close()
    return emitted([(row.params, row.output) for row in texts.values()])


GOLDEN = {
    "v1": ("1859435d66918e09", 431, "f782b6621ca66afc", 850),
    "v1 overlapping": ("b1e91f0020364a03", 441, "2f2db9a0f50f9619", 860),
    "v2": ("63d2e9f8b7d51e26", 570, "d6e2cc5e5c61cbf2", 1081),
    "v2 overlapping": ("7c3335a5fce04e72", 583, "01143b6aab4372c9", 1094),
    "v2 drafts": ("030e59e9246e0541", 1570, "506d93d9eceac7b4", 2178),
    "tsd exact match": ("79b555ae7566dbed", 876, "f34a7c599f233cc1", 1190),
    "tsd canonical": ("91168c975f749309", 919, "dc77477d81367403", 1411),
}
"""By script, the digest of its records and their number, and the same of the lines that hold
them."""

SCRIPTS: dict[str, Callable[..., list[EmittedText]]] = {
    "v1": play_v1,
    "v1 overlapping": partial(play_v1, overlapping=True),
    "v2": play_v2,
    "v2 overlapping": partial(play_v2, overlapping=True),
    "v2 drafts": partial(play_v2, drafts=2),
    "tsd exact match": partial(play_tsd, mode="exact_match"),
    "tsd canonical": partial(play_tsd, mode="canonical"),
}


@pytest.mark.parametrize("name", SCRIPTS)
def test_the_ledger_of_a_fixed_script_is_what_it_was(
    name: str, sources: dict[str, SeededSource], tmp_path: Path
) -> None:
    SCRIPTS[name](sources)
    assert found_in(tmp_path) == GOLDEN[name]


@pytest.mark.parametrize("name", SCRIPTS)
def test_the_ledger_passes_the_checks_of_every_host(
    name: str, sources: dict[str, SeededSource], tmp_path: Path
) -> None:
    texts = SCRIPTS[name](sources, faithful=True)
    (file,) = tmp_path.glob("*.jsonl")
    lines = [json.loads(line) for line in file.read_text("utf-8").splitlines()]
    check_ledger(lines, texts, bytes_drawn=sum(source.drawn for source in sources.values()))
    assert sum(len(text.tokens) for text in texts) > 200


def test_drafts_of_several_numbers_pass_them_too(
    sources: dict[str, SeededSource], tmp_path: Path
) -> None:
    texts = play_tsd(sources, mode="canonical", unit=PBitTreeTSU(), faithful=True)
    (file,) = tmp_path.glob("*.jsonl")
    lines = [json.loads(line) for line in file.read_text("utf-8").splitlines()]
    check_ledger(lines, texts, bytes_drawn=sum(source.drawn for source in sources.values()))
    tokens = [line for line in lines if line["kind"] == "token"]
    drew = [used for line in tokens for used in line["uniforms"] if used["role"] == "proposal"]
    # Five cells are three bits; the token of the tail takes one number more.
    assert {used["bytes"] for used in drew} == {24, 32}
    assert all(used["log_q"] < 0 and used["unit_ns"] == 0 for used in drew), "clocks stand still"
