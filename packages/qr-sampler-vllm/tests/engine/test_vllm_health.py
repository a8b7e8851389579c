# SPDX-License-Identifier: Apache-2.0
"""Sources that fail in mid-run, in six ways, under each policy for what happens then.

Each request draws from a source of its own, which delivers good bytes at first; a neighbour draws
from one that stays good. A source is tested again after half a second here instead of a minute.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import pytest

from qr_sampler.records.files import ledgers_in
from qr_sampler.testing import records_in

TOKENS = 4
GOOD_DRAWS = 2
BLOCK_BYTES = 10_240
PYTHONPATH = os.environ.get("PYTHONPATH")

FAULTS = {
    "stuck": "repetition_count",
    "top_bit": "bit_planes",
    "counter": "repeated_windows",
    "old_block": "repeated_windows",
    "hexadecimal": "adaptive_proportion",
    "zeros": "adaptive_proportion",
}
"""The first test that sees each of them, of those that fail the source with the first draw."""

PLUGINS = """
    import os

    import numpy as np
    from qr_sampler import EntropySource

    OLD = os.urandom(16_384)

    def zeros(data):
        samples = np.frombuffer(data, np.uint8).copy()
        samples[np.random.default_rng(1).random(len(samples)) < 0.1] = 0
        return samples.tobytes()

    FAULTS = {
        "stuck": lambda data: bytes([7]) * len(data),
        "top_bit": lambda data: (np.frombuffer(data, np.uint8) | 128).tobytes(),
        "counter": lambda data: (np.arange(len(data)) % 256).astype(np.uint8).tobytes(),
        "old_block": lambda data: OLD[: len(data)],
        "hexadecimal": lambda data: data[: len(data) // 2].hex().encode(),
        "zeros": zeros,
    }

    class Source(EntropySource):
        conditioning = "none"
        min_entropy_per_byte = 8.0
        broken = False
        good_draws = GOOD_DRAWS
        draws = delivered = 0

        @property
        def name(self):
            return type(self).fault

        def get_random_bytes(self, n):
            data = os.urandom(n)
            type(self).delivered += n
            # Start-up tests are short here, blocks long.
            type(self).draws += n == BLOCK_BYTES
            # What is served again was served before.
            if self.fault == "old_block" and self.draws == 1 and n == BLOCK_BYTES:
                return OLD[:n]
            broken = Source.broken and self.draws > self.good_draws
            return FAULTS[self.fault](data) if broken else data

    for each in FAULTS:
        globals()[each] = type(each, (Source,), {"fault": each})
"""

GENERATE = """
    import gc, pathlib
    from vllm import SamplingParams
    from vllm.platforms.cpu import CpuPlatform
    import qr_plugins, qr_sampler_vllm
    from qr_sampler.health import recovery

    recovery.FIRST_PAUSE_S = 0.5
    ledgers = pathlib.Path(os.environ["QR_LEDGER_DIR"])
    kinds = [getattr(qr_plugins, name) for name in qr_plugins.FAULTS]

    def generate(llm, part, sources):
        params = [
            SamplingParams(
                max_tokens=task["tokens"],
                allowed_token_ids=list(range(300, 900)),
                extra_args={"qr_request_key": f"{source} {part}", "qr_entropy_source": source},
            )
            for source in sources
        ]
        try:
            llm.generate(["Light is"] * len(params), params, use_tqdm=False)
        except Exception as error:
            return f"{type(error).__name__}: {error}"
        finally:
            qr_sampler_vllm.flush_records()
        return ""

    def played(policy, sources):
        os.environ.update(QR_FALLBACK_MODE=policy, QR_LEDGER_DIR=str(ledgers / policy))
        for kind in kinds:
            kind.draws = kind.delivered = 0
        qr_plugins.Source.broken = True
        llm = engine(max_num_seqs=8)
        raised = generate(llm, "first", sources)
        if not raised:
            qr_plugins.Source.broken = False
            time.sleep(0.6)
            raised = generate(llm, "then", sources)
        return {"raised": raised, "delivered": {kind.fault: kind.delivered for kind in kinds}}

    # Several engines, one after the other: a process takes longer to begin than each of them.
    found = []
    for policy, sources in task["plays"]:
        found.append(played(policy, sources))
        gc.collect()
        # vLLM replaces its kernels once in a process, and fails at a second time.
        CpuPlatform.register_triton_kernel_overrides = classmethod(lambda platform: None)
    result(found)
"""


@pytest.fixture
def played(
    offline_engine: Callable[[str], Any], site: Any
) -> Callable[[str, list[tuple[str, list[str]]]], list[tuple[Any, list[dict[str, Any]]]]]:
    """Plays the script under policies, each with the sources that fail; returns for each its result
    and the records."""

    def play(
        runner: str, plays: list[tuple[str, list[str]]]
    ) -> list[tuple[dict[str, Any], list[dict[str, Any]]]]:
        constants = f"GOOD_DRAWS, BLOCK_BYTES = {GOOD_DRAWS}, {BLOCK_BYTES}\n"
        site.install(
            "qr_plugins",
            f"    {constants}{PLUGINS}",
            {
                "qr_sampler.entropy_sources": "\n".join(
                    f"{fault} = qr_plugins:{fault}" for fault in FAULTS
                )
            },
        )
        engine = offline_engine(runner)
        env = {
            "PYTHONPATH": os.pathsep.join([str(site.directory), *filter(None, [PYTHONPATH])]),
            "QR_REQUEST_ENTROPY_SOURCES": ",".join(FAULTS),
            "QR_SAMPLE_COUNT": str(BLOCK_BYTES),
        }
        requests = [(policy, ["system", *faults]) for policy, faults in plays]
        results = engine.result(GENERATE, {"plays": requests, "tokens": TOKENS}, env)
        ledgers = [ledgers_in(engine.ledger / policy) for policy, _ in plays]
        return [
            (result, records_in(file)) for result, (file,) in zip(results, ledgers, strict=True)
        ]

    return play


def of_request(lines: list[dict[str, Any]], key: str) -> list[dict[str, Any]]:
    """Returns the records of the tokens of a request."""
    return [
        line for line in lines if line["kind"] in ("token", "forced") and line["request_key"] == key
    ]


def assert_good(records: list[dict[str, Any]], source: str, count: int) -> None:
    """Checks that a source has decided the tokens, and that its tests found nothing."""
    seen = [(line["kind"], line["source"], line["fallback"], line["health"]) for line in records]
    assert seen == [("token", source, False, "ok")] * count


def assert_bytes_are_accounted_for(
    lines: list[dict[str, Any]], fault: str, delivered: int, reasons: list[str]
) -> None:
    """Checks what became of the bytes of a source, to the last one."""
    own = [line for line in lines if line.get("source") == fault and "block_bytes" in line]
    assert sum(line["block_bytes"] for line in own) == delivered
    told = [line["reason"] for line in own if line["kind"] == "discard"]
    assert len(told) == len(reasons)
    assert all(map(str.startswith, told, reasons)), told


def assert_failed_sources_decide_nothing(
    policy: str, result: dict[str, Any], lines: list[dict[str, Any]]
) -> None:
    """Checks the records of an engine in which all sources but one have failed for a while."""
    assert result["raised"] == ""
    for part in ("first", "then"):
        assert_good(of_request(lines, f"system {part}"), "system", TOKENS)
    for fault, test in FAULTS.items():
        records = of_request(lines, f"{fault} first")
        assert_good(records[:GOOD_DRAWS], fault, GOOD_DRAWS)
        why = f"health: {test} "
        if policy == "system":
            assert len(records) == TOKENS
            for record in records[GOOD_DRAWS:]:
                assert (record["source"], record["fallback"]) == ("system", True)
                assert record["fallback_reason"].startswith(f"{fault}: {why}")
        else:
            (end,) = records[GOOD_DRAWS:]
            assert end["kind"] == "forced"
            assert why in end["reason"]
        # Good again, it decides nothing until it has passed another start-up test.
        assert_good(of_request(lines, f"{fault} then"), fault, TOKENS)
        reasons = ["startup_test", why, "startup_test"]
        assert_bytes_are_accounted_for(lines, fault, result["delivered"][fault], reasons)


def assert_the_engine_has_ended(
    fault: str, result: dict[str, Any], lines: list[dict[str, Any]]
) -> None:
    """Checks the records of an engine that a failed source has ended, as its operator asked."""
    why = f"health: {FAULTS[fault]} "
    assert why in result["raised"]
    decided = [line for line in lines if line["kind"] == "token" and line["source"] == fault]
    assert_good(decided, fault, GOOD_DRAWS)
    assert_bytes_are_accounted_for(lines, fault, result["delivered"][fault], ["startup_test", why])


def test_no_token_comes_from_a_failed_source_and_records_say_why(
    played: Callable[..., Any],
) -> None:
    (system, lines), (error, errors) = played("v1", [("system", [*FAULTS]), ("error", ["top_bit"])])
    assert_failed_sources_decide_nothing("system", system, lines)
    assert_the_engine_has_ended("top_bit", error, errors)


def test_requests_of_failed_sources_end_beside_others(played: Callable[..., Any]) -> None:
    ((result, lines),) = played("v2", [("end_request", [*FAULTS])])
    assert_failed_sources_decide_nothing("end_request", result, lines)


@pytest.mark.skipif("HEALTH_ERRORS" not in os.environ, reason="it is campaigns/health_errors.py")
@pytest.mark.parametrize("fault", FAULTS)
def test_each_fault_ends_the_engine(played: Callable[..., Any], fault: str) -> None:
    ((result, lines),) = played("v1", [("error", [fault])])
    assert_the_engine_has_ended(fault, result, lines)
    raised = result["raised"].splitlines()[0]
    print(f"{fault}: {GOOD_DRAWS} tokens, then {raised[:160]}")
