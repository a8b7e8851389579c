# SPDX-License-Identifier: Apache-2.0
"""vLLM's HTTP server with an entropy server in a process of its own, over real gRPC."""

from __future__ import annotations

import asyncio
import json
import sys
import time
import types
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from qr_sampler import RowContext, link_digest, row_digest, step_commitment
from qr_sampler.testing import records_in

FILTER = Path(__file__).resolve().parents[4] / "deployments/openwebui/qr_sampler_filter.py"

CHAT_TEMPLATE = "{% for message in messages %}{{ message.content }}{% endfor %}"
"""The tiny model has none of its own."""


class Server:
    """A running HTTP server and the ledger that it writes."""

    def __init__(self, url: str, ledger: Path) -> None:
        self._url = url
        self._ledger = ledger

    def complete(self, **arguments: Any) -> tuple[int, dict[str, Any]]:
        """Returns status and body of one completion."""
        body = {"model": "tiny", "prompt": "Light is", "max_tokens": 8, "temperature": 1.0}
        return self.post("completions", {**body, **arguments})

    def post(self, what: str, body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        """Returns status and body of what the server answers to *body*."""
        request = urllib.request.Request(
            self._url + (what if what.startswith("/") else f"/v1/{what}"),
            data=json.dumps(body).encode(),
            headers={"Content-Type": "application/json"},
        )
        try:
            with urllib.request.urlopen(request, timeout=600) as response:
                return response.status, json.load(response)
        except urllib.error.HTTPError as error:
            return error.code, json.load(error)

    def run_id(self) -> str:
        """Returns the name of the engine's run."""
        (file,) = self._ledger.glob("*.jsonl")
        with file.open(encoding="utf-8") as lines:
            return str(json.loads(next(lines))["run_id"])

    def tokens(self, key: str, count: int) -> list[dict[str, Any]]:
        """Returns the token records of a finished request, waiting until all are written."""
        return self.records("token", key, count)

    def records(self, kind: str, key: str, count: int) -> list[dict[str, Any]]:
        """Returns the records of one kind of a request, waiting for as many as *count*."""
        for _ in range(600):
            found = [
                record
                for record in records_in(self._ledger)
                if record.get("request_key") == key and record["kind"] == kind
            ]
            if len(found) >= count:
                return found
            time.sleep(0.1)
        raise AssertionError(f"{key}: {len(found)} records, expected {count}")


@pytest.fixture(scope="module")
def entropy(start_entropy_server: Callable[..., Any]) -> Any:
    return start_entropy_server()


@pytest.fixture(scope="module", params=["v1", "v2"])
def server(
    request: pytest.FixtureRequest,
    start_openai_server: Callable[..., Any],
    entropy: Any,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Server]:
    ledger = tmp_path_factory.mktemp(f"ledger-{request.param}")
    env = {
        "QR_ENTROPY_SOURCE_TYPE": "quantum_grpc",
        "QR_GRPC_SERVER_ADDRESS": entropy.address,
        # The machines that run this are small and busy.
        "QR_GRPC_TIMEOUT_MS": "20000",
        "QR_CB_MIN_TIMEOUT_MS": "20000",
        "QR_FALLBACK_MODE": "system",
        "QR_LEDGER_DIR": str(ledger),
    }
    template = ledger / "chat.jinja"
    template.write_text(CHAT_TEMPLATE, "utf-8")
    entropy.start()
    arguments = ["--chat-template", str(template)]
    running = start_openai_server(runner=request.param, env=env, arguments=arguments)
    yield Server(running.url, ledger)
    running.stop()


def test_completion_is_chosen_by_the_entropy_server(server: Server) -> None:
    arguments = {"qr_request_key": "plain", "qr_top_k": 20, "qr_trial": "1"}
    status, body = server.complete(vllm_xargs=arguments)
    assert status == 200, body
    count = body["usage"]["completion_tokens"]
    records = server.tokens("plain", count)
    assert [record["position"] for record in records] == list(range(count))
    for record in records:
        assert record["source"] == "quantum_grpc"
        assert record["source_distribution"] == "qr-sampler-grpc"
        assert not record["fallback"]
        assert record["device_id"]
        assert record["device_timestamp_ns"] > 0
        assert record["candidates"] <= 20
        assert record["echo_verified"] is True
        # Nothing else was asked for, so each step decided this one row.
        row = bytes.fromhex(record["row_digest"])
        assert record["commitment"] == step_commitment([row]).hex()
    digests = [bytes.fromhex(record["row_digest"]) for record in records]
    assert digests == list(linked(records, server.run_id()))


def linked(records: list[dict[str, Any]], run_id: str) -> Iterator[bytes]:
    """Yields the row digests that follow from the records of one sequence."""
    link = b""
    names = ("temperature", "entropy_nats", "varentropy_nats2")
    for record in records:
        context = RowContext(run_id, record["sequence"], record["position"], link)
        row = row_digest(context, **{name: record[name] for name in names})
        yield row
        link = link_digest(row, record["token_id"], record["u"])


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ({"qr_top_k": "abc"}, "qr_top_k='abc'"),
        ({"qr_temperature_strategy": "bogus"}, "qr_temperature_strategy='bogus'"),
        ({"qr_sample_count": 0}, "qr_sample_count=0"),
        ({"qr_no_such_key": 1}, "qr_no_such_key=1"),
        ({"qr_no_such_key_\ud800": 1}, "qr_no_such_key_"),
        ({"QR_TOP_K": 1}, "did you mean qr_top_k?"),
        ({" qr_topk": 1}, "did you mean qr_top_k?"),
        ({"qr_request_key": "half of a pair: \ud800"}, "qr_request_key='half of a pair"),
        ({"qr_top_k": [1, 2]}, "qr_top_k=[1, 2]"),
        ({"qr_ledger_dir": "/tmp"}, "qr_ledger_dir='/tmp'"),
    ],
)
def test_bad_value_is_answered_with_400_while_the_server_goes_on(
    server: Server, arguments: dict[str, Any], named: str
) -> None:
    status, body = server.complete(vllm_xargs=arguments)
    assert status == 400
    assert named in body["error"]["message"]
    assert server.complete(max_tokens=1)[0] == 200


BEAMS = {"model": "tiny", "max_tokens": 2, "n": 2, "use_beam_search": True}
SCORES = {"model": "tiny", "query": "Light", "items": [" is"], "label_token_ids": [300, 301]}


@pytest.mark.parametrize(
    ("what", "body", "named"),
    [
        ("completions", {**BEAMS, "prompt": "Light is"}, "beam search"),
        (
            "chat/completions",
            {**BEAMS, "messages": [{"role": "user", "content": "Hi"}]},
            "beam search",
        ),
        ("/generative_scoring", SCORES, "generative scoring"),
    ],
)
def test_answers_without_a_drawn_token_are_refused(
    server: Server, what: str, body: dict[str, Any], named: str
) -> None:
    status, answer = server.post(what, body)
    assert status == 400, answer
    assert f"{named} answers from probabilities" in answer["error"]["message"]


def test_concurrent_requests_obey_their_own_overrides(server: Server) -> None:
    # The short request comes while the long one is under way, unless the machine is very slow.
    for attempt in range(20):
        if met_in_one_step(server, f"cold {attempt}", f"hot {attempt}"):
            return
    raise AssertionError("the requests never met in one step")


def met_in_one_step(server: Server, cold_key: str, hot_key: str) -> bool:
    """Sends two requests, the second while the first is under way; both must be obeyed."""

    def ask(key: str, count: int, **wishes: Any) -> int:
        arguments = {"qr_request_key": key, **wishes}
        status, _ = server.complete(max_tokens=count, ignore_eos=True, vllm_xargs=arguments)
        return status

    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(ask, cold_key, 200, qr_top_k=1, qr_fixed_temperature=0.2)
        server.tokens(cold_key, 1)
        assert ask(hot_key, 20, qr_top_k=40, qr_fixed_temperature=1.7, qr_sample_count=1024) == 200
        assert first.result() == 200
    cold, hot = server.tokens(cold_key, 200), server.tokens(hot_key, 20)
    assert {(line["candidates"], line["temperature"]) for line in cold} == {(1, 0.2)}
    assert {line["temperature"] for line in hot} == {1.7}
    assert {line["block_bytes"] for line in hot} == {1024}
    assert all(line["candidates"] <= 40 for line in hot)
    return not {line["t_request_ns"] for line in cold}.isdisjoint(
        line["t_request_ns"] for line in hot
    )


def open_webui_body(message: str, user: dict[str, Any], **controls: Any) -> dict[str, Any]:
    """Returns a chat's request after our filter: what Open WebUI sends to vLLM as it is.

    Args:
        message: Name of the message in the chat.
        user: What the user has set in the filter.
        controls: What the user has set in the controls of the chat.
    """
    name = "function_qr_sampler"
    module = types.ModuleType(name)
    sys.modules[name] = module
    try:
        exec(FILTER.read_text("utf-8"), module.__dict__)
    finally:
        del sys.modules[name]
    function = module.Filter()
    said = [{"role": "user", "content": "Light is"}]
    done: dict[str, Any] = asyncio.run(
        function.inlet(
            body={"model": "tiny", "messages": said, "max_tokens": 8, **controls},
            __user__={"id": "u1", "valves": function.UserValves(**user)},
            __metadata__={"chat_id": "chat", "message_id": message},
        )
    )
    return done


def test_controls_of_open_webui_change_how_tokens_are_drawn(server: Server) -> None:
    bodies = {
        "bypassed": open_webui_body("bypassed", {"bypass": "yes"}),
        "cold": open_webui_body("cold", {"top_k": 1, "fixed_temperature": 0.2}),
        "wide": open_webui_body(
            "wide", {"fixed_temperature": 1.7, "sample_count": 128, "trial": "7"}
        ),
        "slid": open_webui_body("slid", {"follow_request": "yes"}, temperature=0.35, top_k=5),
        "unset": open_webui_body("unset", {}, temperature=0.35, top_k=5),
    }
    records = {}
    for name, body in bodies.items():
        status, answer = server.post("chat/completions", {**body, "ignore_eos": True})
        assert status == 200, answer
        if name != "bypassed":
            records[name] = server.tokens(f"chat/{name}", 8)
    # Records are written in the order of the tokens, so this one's would be there by now.
    assert server.tokens("chat/bypassed", 0) == []
    assert len(server.records("bypass", "chat/bypassed", 1)) == 1

    def seen(name: str, *fields: str) -> set[tuple[Any, ...]]:
        return {tuple(record[field] for field in fields) for record in records[name]}

    assert seen("cold", "temperature", "candidates", "rank") == {(0.2, 1, 0)}
    assert seen("wide", "temperature", "block_bytes", "trial") == {(1.7, 128, "7")}
    assert seen("slid", "temperature", "candidates") == {(0.35, 5)}
    assert seen("unset", "temperature", "block_bytes") == {(0.7, 10_240)}
    assert max(record["candidates"] for record in records["unset"]) > 5


def test_open_webui_hears_which_of_its_controls_was_wrong(server: Server) -> None:
    body = open_webui_body("wrong", {"entropy_source": "lava_lamp"})
    status, answer = server.post("chat/completions", body)
    assert status == 400
    assert "qr_entropy_source='lava_lamp'" in answer["error"]["message"]


def test_killed_entropy_server_means_flagged_fallback_and_no_outage(
    server: Server, entropy: Any
) -> None:
    def sources(key: str) -> set[tuple[str, bool]]:
        status, body = server.complete(vllm_xargs={"qr_request_key": key})
        assert status == 200, body
        records = server.tokens(key, body["usage"]["completion_tokens"])
        return {(record["source"], record["fallback"]) for record in records}

    assert sources("before") == {("quantum_grpc", False)}
    entropy.kill()
    assert sources("during") == {("system", True)}
    entropy.start()
    for attempt in range(120):
        if ("quantum_grpc", False) in sources(f"after-{attempt}"):
            return
        time.sleep(0.5)
    raise AssertionError("the primary source was not taken up again")


def test_each_data_parallel_engine_has_a_ledger_of_its_own(
    start_openai_server: Callable[..., Any], tmp_path: Path
) -> None:
    running = start_openai_server(
        runner="v1",
        env={"QR_LEDGER_DIR": str(tmp_path), "VLLM_CPU_OMP_THREADS_BIND": "0|1"},
        arguments=["--data-parallel-size", "2"],
    )
    server = Server(running.url, tmp_path)

    def ask(key: str) -> int:
        status, body = server.complete(ignore_eos=True, vllm_xargs={"qr_request_key": key})
        return int(body["usage"]["completion_tokens"]) if status == 200 else 0

    # Which engine serves a request depends on how many others it has just then.
    for attempt in range(20):
        keys = [f"request {number} of {attempt}" for number in range(8)]
        with ThreadPoolExecutor(len(keys)) as pool:
            assert list(pool.map(ask, keys)) == [8] * len(keys)
        for key in keys:
            assert [line["position"] for line in server.tokens(key, 8)] == list(range(8))
        if all('{"kind":"token"' in file.read_text("utf-8") for file in tmp_path.glob("*.jsonl")):
            break
    running.stop()
    files = sorted(tmp_path.glob("*.jsonl"))
    assert sorted(file.name.split("-")[1] for file in files) == ["dp0", "dp1"]
    for file in files:
        kinds = [record["kind"] for record in records_in(file)]
        assert kinds[0] == "genesis"
        assert "token" in kinds
