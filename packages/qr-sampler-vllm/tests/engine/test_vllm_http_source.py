# SPDX-License-Identifier: Apache-2.0
"""Tokens that a service over HTTP decides, with a used-up quota and an expired key in between."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

KEY = "k3y-of-the-engine"
TOKENS = 8
BLOCK_BYTES = 64

SERVE = """
    from qr_entropy_http.simulators import Simulator
    from vllm import SamplingParams
    import qr_sampler_vllm

    # In the process of the engine, so that both read the same clock.
    service = Simulator("anu", key=task["key"])
    service.retry_after_s = 2
    os.environ["QR_HTTP_URL"] = service.url
    llm = engine(max_num_seqs=4)
    asked, took_s = {}, {}

    def generate(phase, fault=""):
        service.fault, before, began_s = fault, service.requests, time.monotonic()
        for key, extra in (("service", {}), ("neighbour", {"qr_entropy_source": "system"})):
            params = SamplingParams(
                max_tokens=task["tokens"],
                min_tokens=task["tokens"],
                allowed_token_ids=list(range(300, 900)),
                extra_args={"qr_request_key": f"{phase}: {key}", **extra},
            )
            llm.llm_engine.add_request(f"{phase}: {key}", "Light is", params)
        while llm.llm_engine.has_unfinished_requests():
            llm.llm_engine.step()
        qr_sampler_vllm.flush_records()
        asked[phase], took_s[phase] = service.requests - before, time.monotonic() - began_s

    generate("at first")
    generate("used up", "quota")
    time.sleep(service.retry_after_s)
    generate("recovered")
    generate("expired", "expired")
    made = [[each.made_ns, len(each.data)] for each in service.deliveries]
    result({"asked": asked, "took_s": took_s, "made": made, "wait_s": service.retry_after_s})
"""


def test_a_service_decides_tokens_and_fails_openly(
    offline_engine: Callable[[str], Any], tmp_path: Path
) -> None:
    engine = offline_engine("v1")
    key_file = tmp_path / "key"
    key_file.touch(0o600)
    key_file.write_text(KEY)
    env = {
        "QR_ENTROPY_SOURCE_TYPE": "http",
        "QR_REQUEST_ENTROPY_SOURCES": "system",
        "QR_FALLBACK_MODE": "system",
        "QR_SAMPLE_COUNT": str(BLOCK_BYTES),
        "QR_CB_ENABLED": "false",
        "QR_HTTP_PRESET": "anu",
        "QR_HTTP_KEY_FILE": str(key_file),
        "QR_HTTP_STATE_DIR": str(tmp_path / "state"),
    }
    result = engine.result(SERVE, {"key": KEY, "tokens": TOKENS}, env)
    lines = engine.lines()
    for phase in ("at first", "used up", "recovered", "expired"):
        neighbour = tokens(lines, f"{phase}: neighbour")
        assert [one["source"] for one in neighbour] == ["system"] * TOKENS, phase
        assert not any(one["fallback"] for one in neighbour), phase

    for phase in ("at first", "recovered"):
        served = tokens(lines, f"{phase}: service")
        assert [one["source"] for one in served] == ["http"] * TOKENS, phase
        assert not any(one["fallback"] for one in served), phase
        for one in served:
            # Made for this token, and for no other: after its logits.
            made = [
                time_ns
                for time_ns, _ in result["made"]
                if one["t_request_ns"] <= time_ns <= one["t_received_ns"]
            ]
            assert len(made) == 1, phase
            assert made[0] >= one["t_logits_ns"], phase

    reasons = {
        "used up": "has reached a limit",
        "expired": "does not accept the API key, or it has expired",
    }
    for phase, words in reasons.items():
        replaced = tokens(lines, f"{phase}: service")
        assert [one["source"] for one in replaced] == ["system"] * TOKENS, phase
        assert all(one["fallback"] for one in replaced), phase
        assert words in str(lines), phase
    # Left alone as it asks, and after a refused key for a minute.
    assert 1 <= result["asked"]["used up"] <= 1 + result["took_s"]["used up"] / result["wait_s"]
    assert 1 <= result["asked"]["expired"] <= 1 + result["took_s"]["expired"] / 60.0
    assert KEY not in str(lines)


def tokens(lines: list[dict[str, Any]], key: str) -> list[dict[str, Any]]:
    """Returns the records of the tokens of a request."""
    return [line for line in lines if line["kind"] == "token" and line["request_key"] == key]
