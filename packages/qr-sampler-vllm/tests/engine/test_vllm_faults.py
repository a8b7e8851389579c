# SPDX-License-Identifier: Apache-2.0
"""Every way in which an entropy server fails, under every failure policy, with real engines.

The engine lives on unless the operator wants it to stop; no fallback is unflagged; and an answer
that was late, short or wrong decides no token.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

FAULTS = ("killed", "hung", "slow", "short", "garbage", "wrong id", "flapping")
END_OF_TEXT = 0

SERVE = """
    import pathlib
    from vllm import SamplingParams
    import qr_sampler_vllm
    from qr_sampler.testing import records_in

    directory = pathlib.Path(task["directory"])

    def command(text):
        (directory / "command").write_text(text)
        while (directory / "acknowledged").read_text() != text:
            time.sleep(0.01)

    llm = engine(max_num_seqs=4)

    def generate(keys):
        params = [
            SamplingParams(
                max_tokens=task["tokens"],
                min_tokens=0,
                allowed_token_ids=list(range(300, 900)),
                extra_args={"qr_request_key": key, **task["extra"].get(key.split()[-1], {})},
            )
            for key in keys
        ]
        try:
            outputs = llm.generate(["Light is"] * len(keys), params, use_tqdm=False)
        except Exception as error:
            for key in list(llm.llm_engine.output_processor.request_states):
                llm.llm_engine.abort_request([key], internal=True)
            llm.llm_engine.step()
            return {key: str(error) for key in keys}
        qr_sampler_vllm.flush_records()
        return {
            key: [list(output.outputs[0].token_ids), output.outputs[0].finish_reason]
            for key, output in zip(keys, outputs, strict=True)
        }

    def recovered(key):
        records = records_in(pathlib.Path(os.environ["QR_LEDGER_DIR"]))
        mine = [record for record in records if record.get("request_key") == key]
        return bool(mine) and all(
            record["kind"] == "token" and not record["fallback"] for record in mine
        )

    found, after = {}, {}
    for fault in task["faults"]:
        command("good")
        found.update(generate([f"before {fault}: device"]))
        command(fault)
        found.update(generate([f"{fault}: device", f"{fault}: spare"]))
        command("good")
        # After a refused connection gRPC waits a moment before it tries again.
        for attempt in range(60):
            key = f"after {fault}, {attempt}: device"
            found.update(generate([key]))
            if recovered(key):
                break
            time.sleep(0.5)
        after[fault] = key
    result({"found": found, "after": after})
"""


@pytest.fixture
def faulty_server(free_port: Callable[[], int], tmp_path: Path) -> Iterator[tuple[str, Path]]:
    """The address of a server that fails on command, and the directory of commands and answers."""
    port, script = free_port(), Path(__file__).with_name("faulty_entropy_server.py")
    (tmp_path / "command").write_text("good")
    environment = {**os.environ, "GRPC_VERBOSITY": "NONE"}
    command = [sys.executable, str(script), str(port), str(tmp_path)]
    with subprocess.Popen(command, env=environment) as server:
        yield f"127.0.0.1:{port}", tmp_path
        server.kill()


class Served:
    """What an engine made of the faults."""

    def __init__(self, engine: Any, server: tuple[str, Path], policy: str) -> None:
        address, directory = server
        task = {
            "directory": str(directory),
            "faults": FAULTS,
            "tokens": 8,
            "extra": {"spare": {"qr_entropy_source": "system"}},
        }
        variables = {
            "QR_ENTROPY_SOURCE_TYPE": "quantum_grpc",
            "QR_REQUEST_ENTROPY_SOURCES": "system",
            "QR_GRPC_SERVER_ADDRESS": address,
            # Short, because the test waits for it, and long enough for a machine that is busy.
            "QR_GRPC_TIMEOUT_MS": "1500",
            "QR_CB_MIN_TIMEOUT_MS": "1500",
            "QR_FALLBACK_MODE": policy,
            "QR_SAMPLE_COUNT": "64",
            # The bytes of the server are chosen, each block by its sum.
            "QR_HEALTH": "false",
        }
        result = engine.result(SERVE, task, variables)
        self.found: dict[str, Any] = result["found"]
        self.after: dict[str, str] = result["after"]
        self.lines: list[dict[str, Any]] = engine.lines()
        texts = (directory / "answers").read_text().splitlines()
        self.answers: list[dict[str, Any]] = [json.loads(text) for text in texts]

    def records(self, key: str) -> list[dict[str, Any]]:
        kinds = ("token", "forced")
        return [line for line in self.lines if line["kind"] in kinds and line["request_key"] == key]

    def assert_records_are_the_tokens(self, key: str) -> None:
        tokens, _ = self.found[key]
        assert [record["token_id"] for record in self.records(key)] == tokens, key
        assert [record["position"] for record in self.records(key)] == list(range(len(tokens)))

    def assert_only_good_answers_decided(self) -> None:
        good = {total for answer in self.answers if not answer["fault"] for total in answer["sums"]}
        deciding = [
            line["block_sum"]
            for line in self.lines
            if line["kind"] == "token" and line["source"] == "quantum_grpc"
        ]
        assert set(deciding) <= good
        assert len(set(deciding)) == len(deciding), "an answer has decided more than one token"
        # Each fault did happen: its answers are there, and decided nothing.
        assert {answer["fault"] for answer in self.answers} >= {"hung", "slow", "short", "garbage"}


@pytest.fixture
def serve(
    offline_engine: Callable[[str], Any], faulty_server: tuple[str, Path]
) -> Callable[..., Served]:
    """Runs all faults under one policy in one engine."""
    return lambda policy, runner="v1": Served(offline_engine(runner), faulty_server, policy)


def test_a_named_fallback_takes_over_and_is_flagged(serve: Callable[..., Served]) -> None:
    served = serve("system")
    for fault in FAULTS:
        for key in (f"before {fault}: device", f"{fault}: device", f"{fault}: spare"):
            served.assert_records_are_the_tokens(key)
            assert len(served.records(key)) == 8
        during = served.records(f"{fault}: device")
        assert {(r["source"], r["fallback"]) for r in during} <= {
            ("system", True),
            ("quantum_grpc", False),
        }
        assert any(record["fallback"] for record in during), fault
        assert all(record["fallback_reason"] for record in during if record["fallback"])
        if fault != "flapping":
            assert all(record["fallback"] for record in during), fault
        assert not any(record["fallback"] for record in served.records(f"{fault}: spare"))
        assert len(served.records(served.after[fault])) == 8
        assert not any(record["fallback"] for record in served.records(served.after[fault]))
    served.assert_only_good_answers_decided()


@pytest.mark.parametrize("runner", ["v1", "v2"])
def test_only_the_affected_requests_end(serve: Callable[..., Served], runner: str) -> None:
    served = serve("end_request", runner)
    for fault in FAULTS:
        tokens, reason = served.found[f"{fault}: device"]
        served.assert_records_are_the_tokens(f"{fault}: device")
        *before, last = served.records(f"{fault}: device")
        assert (tokens[-1], reason, last["kind"]) == (END_OF_TEXT, "stop", "forced"), fault
        assert last["source"] == "quantum_grpc"
        assert last["reason"]
        assert all(record["kind"] == "token" for record in before)
        for key in (f"before {fault}: device", f"{fault}: spare", served.after[fault]):
            served.assert_records_are_the_tokens(key)
            assert [record["kind"] for record in served.records(key)] == ["token"] * 8, key
    assert not any(line.get("fallback") for line in served.lines)
    served.assert_only_good_answers_decided()


def test_error_stops_as_the_operator_asked(serve: Callable[..., Served]) -> None:
    served = serve("error")
    for fault in FAULTS:
        error = served.found[f"{fault}: device"]
        assert isinstance(error, str), fault
        assert "quantum_grpc" in error
        assert "unavailable" in error
        assert len(served.records(served.after[fault])) == 8
    assert not any(line.get("fallback") for line in served.lines)
    assert not any(line["kind"] == "forced" for line in served.lines)
    served.assert_only_good_answers_decided()
