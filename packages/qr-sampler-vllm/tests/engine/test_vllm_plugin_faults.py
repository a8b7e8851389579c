# SPDX-License-Identifier: Apache-2.0
"""Whatever a plugin does, the engine and the requests beside it go on, and every byte is recorded.

Each misbehaviour meets a request that draws from the plugin and a neighbour that does not.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from typing import Any

import pytest

TOKENS = 4
BLOCK_BYTES = 64
LONGEST_LINE_BYTES = 8192
PYTHONPATH = os.environ.get("PYTHONPATH")

PLUGINS = """
    import asyncio, os, threading, time, uuid
    from dataclasses import replace

    import numpy as np
    from qr_sampler import (
        AmplificationResult, EntropySource, EntropyUnavailableError, SignalAmplifier, SourceStatus,
        TemperatureStrategy,
    )

    RAISED = {
        "exits": SystemExit(3),
        "interrupts": KeyboardInterrupt(),
        "cancels": asyncio.CancelledError(),
        "ends a generator": GeneratorExit(),
        "has a bug": ZeroDivisionError("x" * 2**21),
    }
    SAID = {
        "speaks NumPy": {
            "device_timestamp_ns": np.int64(5), "device_id": uuid.UUID(int=7), "origin": None,
            "fallback": np.bool_(False), "signature_verified": np.bool_(True),
        },
        "speaks nonsense": {
            "device_timestamp_ns": float("nan"), "device_id": b"\\xff", "received_ns": 2**80,
            "dropped_bytes": float("nan"), "wall_time_ns": "noon",
        },
        "says too much": {"device_id": "x" * 2**21},
        "has another name": {"source": "system"},
    }

    class Source(EntropySource):
        name = "faulty"
        blocks = False
        fault = ""
        delivered = 0
        released = threading.Event()

        def get_random_bytes(self, n):
            Source.delivered += n
            return os.urandom(n)

        def draw(self, n):
            fault = Source.fault
            if fault in RAISED:
                raise RAISED[fault]
            if fault == "counts in NumPy":
                Source.delivered += 3
                raise EntropyUnavailableError("faulty", "half", dropped_bytes=np.int64(3))
            if fault == "hangs":
                Source.released.wait()
            draw = super().draw(n + (fault == "delivers too much"))
            return replace(draw, **SAID.get(fault, {}))

        def status(self):
            if Source.fault == "has no status":
                raise SystemExit(4)
            return SourceStatus(available=True)

    class Amplifier(SignalAmplifier):
        def amplify(self, blocks, counts=None):
            nothing = np.full(len(blocks), np.nan)
            return AmplificationResult(nothing, nothing)

    class Strategy(TemperatureStrategy):
        def temperatures(self, statistics, rows):
            return np.full(len(rows), np.inf)
"""

SERVE = """
    import pathlib
    from vllm import SamplingParams
    import qr_sampler_vllm
    import qr_plugins

    llm = engine(max_num_seqs=4)

    def generate(requests):
        params = [
            SamplingParams(
                max_tokens=task["tokens"],
                allowed_token_ids=list(range(300, 900)),
                extra_args={"qr_request_key": key, **extra},
            )
            for key, extra in requests.items()
        ]
        outputs = llm.generate(["Light is"] * len(params), params, use_tqdm=False)
        qr_sampler_vllm.flush_records()
        return {
            key: list(output.outputs[0].token_ids)
            for key, output in zip(requests, outputs, strict=True)
        }

    found = {}
    faulty, source = {"qr_entropy_source": "faulty"}, qr_plugins.Source

    def meet(fault):
        source.fault = fault
        found.update(generate({f"{fault}: user": faulty, f"{fault}: neighbour": {}}))
        source.fault = ""

    for fault in task["faults"]:
        meet(fault)
        found.update(generate({f"{fault}: afterwards": faulty}))
    for key, extra in task["components"].items():
        found.update(generate({f"{key}: user": {**faulty, **extra}, f"{key}: neighbour": faulty}))
    meet("hangs")
    # What hangs returns at last, and serves nobody.
    source.released.set()
    deadline = time.monotonic() + 60.0
    while True:
        qr_sampler_vllm.flush_records()
        (ledger,) = pathlib.Path(os.environ["QR_LEDGER_DIR"]).glob("*.jsonl")
        if '"reason":"late"' in ledger.read_text() or time.monotonic() > deadline:
            break
        time.sleep(0.05)
    result({"found": found, "delivered": source.delivered})
"""

SERVED = ["speaks NumPy", "speaks nonsense", "says too much", "has no status"]
"""What can be read is read, and the tokens are the plugin's."""
FAILED = {
    "exits": "SystemExit: 3",
    "interrupts": "KeyboardInterrupt",
    "cancels": "CancelledError",
    "ends a generator": "GeneratorExit",
    "has a bug": "ZeroDivisionError: xxx",
    "counts in NumPy": "half",
    "has another name": "calls itself 'system'",
    "delivers too much": f"asked for {BLOCK_BYTES} bytes, received {BLOCK_BYTES + 1}",
    "hangs": "no answer within",
}
"""Why the request ends."""
UNFIT = {"amplifier": "u is not inside (0, 1)", "strategy": "a temperature is not within"}
COMPONENTS = {
    "amplifier": {"qr_signal_amplifier_type": "nan"},
    "strategy": {"qr_temperature_strategy": "infinite"},
}


FEW = ("exits", "has another name", "speaks NumPy", "hangs")
"""Enough for Model Runner V2, whose kernels run in an interpreter here: what guards is the same."""


@pytest.mark.parametrize("runner", ["v1", "v2"])
def test_a_plugin_harms_nobody_but_its_own_requests(
    offline_engine: Callable[[str], Any], site: Any, runner: str
) -> None:
    site.install(
        "qr_plugins",
        PLUGINS,
        {
            "qr_sampler.entropy_sources": "faulty = qr_plugins:Source",
            "qr_sampler.signal_amplifiers": "nan = qr_plugins:Amplifier",
            "qr_sampler.temperature_strategies": "infinite = qr_plugins:Strategy",
        },
    )
    engine = offline_engine(runner)
    met = [fault for fault in (*SERVED, *FAILED) if runner == "v1" or fault in FEW]
    faults = [fault for fault in met if fault != "hangs"]
    task = {"faults": faults, "components": COMPONENTS, "tokens": TOKENS}
    env = {
        "PYTHONPATH": os.pathsep.join([str(site.directory), *filter(None, [PYTHONPATH])]),
        "QR_REQUEST_ENTROPY_SOURCES": "faulty",
        "QR_FALLBACK_MODE": "end_request",
        "QR_SAMPLE_COUNT": str(BLOCK_BYTES),
        # Otherwise the source would be left alone after the first few faults.
        "QR_CB_ENABLED": "false",
        # The test waits for it once, and every good draw has to be faster on a busy machine.
        "QR_DRAW_TIMEOUT_MS": "6000",
    }
    result = engine.result(SERVE, task, env)
    seen = Seen(result["found"], engine.lines())
    for fault in met:
        seen.assert_served(f"{fault}: neighbour", "system")
    for fault in faults:
        seen.assert_served(f"{fault}: afterwards", "faulty")
        if fault in SERVED:
            seen.assert_served(f"{fault}: user", "faulty")
    for fault, reason in {**FAILED, **UNFIT}.items():
        if fault in met or fault in COMPONENTS:
            seen.assert_ended(f"{fault}: user", reason)
    for component in COMPONENTS:
        seen.assert_served(f"{component}: neighbour", "faulty")
    # To the byte, the late ones included.
    mine = [line for line in seen.lines if line.get("source") == "faulty"]
    spent = sum(line["block_bytes"] for line in mine if line["kind"] in ("token", "discard"))
    assert spent == result["delivered"]
    assert max(len(json.dumps(line)) for line in seen.lines) < LONGEST_LINE_BYTES


class Seen:
    """What became of the requests.

    Args:
        found: The tokens of each request.
        lines: The ledger.
    """

    def __init__(self, found: dict[str, list[int]], lines: list[dict[str, Any]]) -> None:
        self._found = found
        self.lines = lines

    def assert_served(self, key: str, source: str) -> None:
        records = self._records(key)
        assert len(records) == TOKENS, key
        assert {(one["kind"], one["source"]) for one in records} == {("token", source)}, key
        assert not any(one["fallback"] for one in records), key

    def assert_ended(self, key: str, reason: str) -> None:
        (record,) = self._records(key)
        assert record["kind"] == "forced", key
        assert reason in record["reason"], key

    def _records(self, key: str) -> list[dict[str, Any]]:
        """Returns the records of a request, which are those of its tokens."""
        kinds = ("token", "forced")
        records = [
            line for line in self.lines if line["kind"] in kinds and line["request_key"] == key
        ]
        assert [record["token_id"] for record in records] == self._found[key], key
        return records
