# SPDX-License-Identifier: Apache-2.0
"""The front end of real vLLM: what it refuses, what it tells, what a scraper gets."""

from __future__ import annotations

import json
import tempfile
import textwrap
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from qr_sampler.testing import records_in

prometheus_client = pytest.importorskip(
    "prometheus_client", reason="needs what vLLM brings, which the vllm session installs"
)

from prometheus_client.parser import text_string_to_metric_families  # noqa: E402

SPECULATION = {"method": "ngram", "num_speculative_tokens": 2, "prompt_lookup_max": 2}


SPECULATE = """
    from qr_sampler_vllm.front_end import checks
    from qr_sampler_vllm.status.run_directory import announce

    if task["guarded"]:
        # As if another engine of this process had loaded the plugin.
        checks.prepare()
        announce()
    else:
        # As if vLLM had given its function another name.
        checks.guard_model_runner_v1 = lambda: None

    from vllm import SamplingParams

    llm = engine(speculative_config=task["speculation"])
    print("CONSTRUCTED")
    print(llm.generate(["x"], SamplingParams(max_tokens=4), use_tqdm=False))
"""


@pytest.mark.parametrize(
    ("guarded", "said"),
    [(True, "Model Runner V1 drops logits processors"), (False, "the engine has not loaded it")],
)
def test_speculation_under_model_runner_v1_never_ends_in_vllms_own_tokens(
    offline_engine: Callable[[str], Any], guarded: bool, said: str
) -> None:
    """vLLM would drop the plugin without a word: the engine does not start, or refuses to work."""
    engine = offline_engine("v1")
    done = engine.script(SPECULATE, {"speculation": SPECULATION, "guarded": guarded})
    assert done.returncode != 0
    assert said in done.stderr
    assert "VLLM_USE_V2_MODEL_RUNNER=1" in done.stderr
    assert ("CONSTRUCTED" in done.stdout) == (not guarded)
    assert not engine.ledger.exists()


LAUNCH = """
import subprocess, sys
launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
sys.exit(subprocess.run([sys.executable, *launcher, sys.argv[1]]).returncode)
"""

RANK = """
    import json, os
    from vllm import LLM, SamplingParams

    llm = LLM(
        model=os.environ["QR_TEST_MODEL"],
        tensor_parallel_size=2,
        distributed_executor_backend="external_launcher",
        enforce_eager=True,
        dtype="float32",
        max_model_len=256,
    )
    (output,) = llm.generate(["Light is"], SamplingParams(max_tokens=6), use_tqdm=False)
    tokens = list(output.outputs[0].token_ids)
    with open(f"{os.environ['QR_TEST_TOKENS']}-{os.environ['RANK']}", "w") as file:
        json.dump(tokens, file)
"""


def test_ranks_that_are_front_ends_of_their_own_serve_their_requests(
    run_engine_script: Callable[..., Any], tiny_model: Path, tmp_path: Path
) -> None:
    """With an external launcher each rank asks whether the plugin is loaded, and only one draws."""
    script = tmp_path / "rank.py"
    script.write_text(textwrap.dedent(RANK))
    env = {
        "VLLM_CPU_OMP_THREADS_BIND": "0|1",
        "QR_LEDGER_DIR": str(tmp_path / "ledger"),
        "QR_TEST_MODEL": str(tiny_model),
        "QR_TEST_TOKENS": str(tmp_path / "tokens"),
    }
    done = run_engine_script(LAUNCH, arguments=[str(script)], env=env, runner="v1")
    assert done.returncode == 0, done.stdout + done.stderr
    first, second = (json.loads((tmp_path / f"tokens-{rank}").read_text()) for rank in range(2))
    assert first == second
    (ledger,) = (tmp_path / "ledger").iterdir()
    lines = records_in(ledger)
    assert [line["token_id"] for line in lines if line["kind"] == "token"] == first


def test_a_server_that_would_drop_the_plugin_does_not_start(
    start_openai_server: Callable[..., Any],
) -> None:
    with pytest.raises(AssertionError, match="Model Runner V1 drops logits processors"):
        start_openai_server(
            runner="v1",
            env={"QR_ENTROPY_SOURCE_TYPE": "system"},
            arguments=["--speculative-config", json.dumps(SPECULATION)],
        )


def test_an_engine_in_a_process_of_its_own_is_known_to_the_front_end(
    offline_engine: Callable[[str], Any],
) -> None:
    engine = offline_engine("v1")
    task = {"prompts": ["Light is"], "extra_args": [{"qr_request_key": "a"}]}
    # vLLM makes sockets there, whose paths must not be long.
    with tempfile.TemporaryDirectory(prefix="qr") as place:
        variables = {"VLLM_ENABLE_V1_MULTIPROCESSING": "1", "TMPDIR": place}
        outputs, lines = engine.generate(task, variables)
        assert list(Path(place).glob("qr-sampler-*")) == [], "the run directory was left behind"
    recorded = [line["token_id"] for line in lines if line["kind"] == "token"]
    assert recorded == outputs[0]["token_ids"]


def get(url: str) -> tuple[int, str]:
    """Returns status and body of an answer."""
    try:
        with urllib.request.urlopen(url, timeout=120) as response:
            return response.status, response.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


def complete(url: str, key: str, tokens: int) -> None:
    """Generates *tokens* tokens."""
    body = {
        "model": "tiny",
        "prompt": "Light is",
        "max_tokens": tokens,
        "ignore_eos": True,
        "vllm_xargs": {"qr_request_key": key},
    }
    request = urllib.request.Request(
        f"{url}/v1/completions",
        data=json.dumps(body).encode(),
        headers={"Content-Type": "application/json"},
    )
    with urllib.request.urlopen(request, timeout=600) as response:
        assert response.status == 200


class Watched:
    """A server and what it says of itself."""

    def __init__(self, url: str) -> None:
        self.url = url

    def status_when(self, wanted: int) -> dict[str, Any]:
        """Returns the status document as soon as it comes with the wanted HTTP status."""
        for _ in range(600):
            code, body = get(f"{self.url}/qr/status")
            if code == wanted:
                document: dict[str, Any] = json.loads(body)
                return document
            time.sleep(0.1)
        raise AssertionError(f"{code}: {body}")

    def samples(self, path: str) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
        """Returns the metrics at a path, by name and labels."""
        code, text = get(f"{self.url}{path}")
        assert code == 200
        return {
            (sample.name, frozenset(sample.labels.items())): sample.value
            for family in text_string_to_metric_families(text)
            for sample in family.samples
            if sample.name.startswith("qr_sampler_")
        }


def test_status_and_metrics_follow_the_source(
    start_openai_server: Callable[..., Any],
    start_entropy_server: Callable[..., Any],
    tiny_model: Path,
    tmp_path: Path,
) -> None:
    entropy = start_entropy_server()
    running = start_openai_server(
        runner="v1",
        env={
            "VLLM_PLUGINS": "qr_sampler",
            "QR_ENTROPY_SOURCE_TYPE": "quantum_grpc",
            "QR_GRPC_SERVER_ADDRESS": entropy.address,
            # The machines that run this are small and busy.
            "QR_GRPC_TIMEOUT_MS": "20000",
            "QR_CB_MIN_TIMEOUT_MS": "20000",
            "QR_FALLBACK_MODE": "system",
            "QR_LEDGER_DIR": str(tmp_path),
        },
    )
    watched = Watched(running.url)
    complete(running.url, "good", 6)
    for _ in range(600):
        (engine,) = watched.status_when(200)["engines"]
        if engine["tokens"] == [{"source": "quantum_grpc", "fallback": False, "count": 6}]:
            break
        time.sleep(0.1)
    else:
        raise AssertionError(engine)
    assert engine["runner"] == "Model Runner V1"
    assert engine["last_draw_age_s"] < 60
    labels = frozenset({("engine", "0"), ("source", "quantum_grpc"), ("fallback", "false")})
    for path in ("/metrics", "/qr/metrics"):
        samples = watched.samples(path)
        assert samples["qr_sampler_tokens_total", labels] == 6.0
        assert samples["qr_sampler_draw_seconds_count", frozenset({("engine", "0")})] == 6.0
        assert samples["qr_sampler_healthy", frozenset()] == 1.0
    entropy.kill()
    complete(running.url, "spare", 20)
    unhealthy = watched.status_when(503)
    assert not unhealthy["healthy"]
    assert any("quantum_grpc" in reason for reason in unhealthy["reasons"])
    assert watched.samples("/metrics")["qr_sampler_healthy", frozenset()] == 0.0
    said = json.dumps(unhealthy)
    for hidden in (str(tmp_path), str(tiny_model.parent), entropy.address, "127.0.0.1"):
        assert hidden not in said
    assert unhealthy["engines"][0]["last_failure"]["source"] == "quantum_grpc"
    entropy.start()
    for attempt in range(120):
        complete(running.url, f"again {attempt}", 20)
        if get(f"{running.url}/qr/status")[0] == 200:
            break
        time.sleep(0.5)
    assert watched.status_when(200)["healthy"]
    for _ in range(600):
        samples = watched.samples("/metrics")
        counted = sum(n for (name, _), n in samples.items() if name == "qr_sampler_tokens_total")
        if counted == (recorded := recorded_tokens(tmp_path)):
            break
        time.sleep(0.1)
    assert counted == recorded
    running.stop()


def recorded_tokens(ledger: Path) -> int:
    """Returns how many tokens are in the files of a directory, the last lines of which may grow."""
    return sum(record["kind"] == "token" for record in records_in(ledger))
