# SPDX-License-Identifier: Apache-2.0
"""Real engines and real servers, each in a process of its own."""

from __future__ import annotations

import importlib.util
import json
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import textwrap
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

from qr_sampler.records.files import ledgers_in
from qr_sampler.testing import records_in

# Derandomised: a run that passes today passes tomorrow; machines differ in speed.
settings.register_profile(
    "qr-sampler-vllm",
    derandomize=True,
    database=None,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile("qr-sampler-vllm")

# A script that needs gRPC, and a module for the processes of engines: only where vLLM is.
collect_ignore = ["faulty_entropy_server.py", "hosts_in_vllm.py"]

START_TIMEOUT_S = 900.0
"""A first start of vLLM takes a minute on two busy cores, and more beside other work."""

SCRIPT_TIMEOUT_S = 1800.0
"""Without a GPU some scripts generate for minutes."""

RUNNER_VARIABLES = {
    "v1": {"VLLM_USE_V2_MODEL_RUNNER": "0"},
    "v2": {"VLLM_USE_V2_MODEL_RUNNER": "1", "TRITON_INTERPRET": "1"},
}

PREAMBLE = """
    import json, os, sys, time

    task = json.loads(sys.argv[1])

    def overlap_steps():
        # vLLM does so on accelerators only; its CPU platform switches that off.
        from vllm.platforms.cpu import CpuPlatform

        update = CpuPlatform.check_and_update_config.__func__

        def update_and_overlap(cls, vllm_config):
            update(cls, vllm_config)
            vllm_config.scheduler_config.async_scheduling = True

        CpuPlatform.check_and_update_config = classmethod(update_and_overlap)

    def engine(**options):
        # Whoever patches vLLM or changes the directory does so before the import.
        from vllm import LLM

        if task.get("overlapping"):
            overlap_steps()
        usual = {
            "distributed_executor_backend": "uni",
            "enforce_eager": True,
            "dtype": "float32",
            "max_model_len": 256,
            # To clear a gigabyte would take longer than most tests.
            "num_gpu_blocks_override": 256,
        }
        return LLM(model=task["model"], **{**usual, **options, **task.get("engine", {})})

    def result(value):
        print("RESULT " + json.dumps(value))
"""
"""What scripts begin with: they make their engine by ``engine()`` and end with ``result(…)``."""

GENERATE = """
    from vllm import SamplingParams
    from vllm.exceptions import VLLMValidationError
    import qr_sampler_vllm

    llm = engine()
    refused = []
    for bad in task.get("bad", []):
        try:
            llm.generate(["x"], SamplingParams(extra_args=bad), use_tqdm=False)
        except VLLMValidationError as error:
            refused.append(str(error))
    params = [
        SamplingParams(
            extra_args=extra,
            **{
                "max_tokens": 12,
                "temperature": index % 2,
                **task.get("params", {}).get(extra.get("qr_request_key"), {}),
            },
        )
        for index, extra in enumerate(task["extra_args"])
    ]
    outputs = llm.generate(task["prompts"], params, use_tqdm=False)
    qr_sampler_vllm.flush_records()
    texts = [
        [{"token_ids": list(o.token_ids), "reason": o.finish_reason} for o in output.outputs]
        for output in outputs
    ]
    result({"outputs": texts, "refused": refused})
"""
"""Generates what a task says. A task has ``prompts`` and as many ``extra_args``; the options of the
engine in ``engine``; further sampling parameters by request key in ``params``; and in ``bad``
arguments that have to be refused. Every second request is greedy in vLLM's eyes."""

LONGEST_FIRST = (
    "test_vllm_speculation.py",
    "test_vllm_offline.py",
    "test_vllm_server.py",
    "test_vllm_deployments.py",
    "test_vllm_ranks.py",
    "test_vllm_aborts.py",
    "test_cli_engine.py",
    "test_vllm_front_end.py",
    "test_vllm_readme.py",
    "test_vllm_tsd_exact_match.py",
    "test_vllm_tsd_docs.py",
    "test_vllm_faults.py",
    "test_vllm_constraints_engine.py",
    "test_lab_engine_studies.py",
    "test_vllm_emission.py",
    "test_vllm_tsd_ranks.py",
)
"""Files of some minutes. What comes last is short, so that no worker is left with much to do."""

ENTROPY_SERVER = Path(__file__).resolve().parents[4] / "servers" / "simple_urandom_server.py"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Puts long files first; skips the engine tests, with the reason, where vLLM is missing."""
    items.sort(key=place)
    if importlib.util.find_spec("vllm") is not None:
        return
    here = Path(__file__).parent
    for item in items:
        if here in item.path.parents:
            item.add_marker(pytest.mark.skip(reason="vLLM is not installed; run `nox -s vllm`"))


def place(item: pytest.Item) -> int:
    """Returns the place of a test's file among all files."""
    name = item.path.name
    return LONGEST_FIRST.index(name) if name in LONGEST_FIRST else len(LONGEST_FIRST)


NOT_IN_A_CLONE = (".git", ".nox", ".venv", "venv", "venv-cpu", "__pycache__", ".*_cache", "dist")


@pytest.fixture(scope="session")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the repository in which nothing is installed."""
    folder = tmp_path_factory.mktemp("fresh") / "clone"
    root = Path(__file__).resolve().parents[4]
    shutil.copytree(root, folder, ignore=shutil.ignore_patterns(*NOT_IN_A_CLONE))
    return folder


@pytest.fixture(scope="session")
def empty_environment() -> dict[str, str]:
    """What a user's shell has: nothing of ours, and no environment of Python's that is active."""
    own = Path(sys.executable).parent
    places = (place for place in os.environ["PATH"].split(os.pathsep) if Path(place) != own)
    left_out = ("QR_", "VIRTUAL_ENV", "PYTHON", "UV_PROJECT", "COVERAGE", "PYTEST")
    kept = {key: value for key, value in os.environ.items() if not key.startswith(left_out)}
    return {**kept, "PATH": os.pathsep.join(places)}


@pytest.fixture(scope="session", autouse=True)
def _interrupts_arrive() -> Iterator[None]:
    """Undoes what a shell does to background jobs: they ignore SIGINT, and so do their children."""
    previous = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, previous)


def skip_without(runner: str) -> None:
    """Skips a test, with the reason, for a model runner that has no logits processors."""
    found = importlib.util.find_spec("vllm")
    places = (found.submodule_search_locations if found is not None else None) or ()
    # Looked for as a file: to import vLLM for this would take half a minute.
    interface = "v1/worker/gpu/sample/logits_processor"
    if runner == "v2" and not any(Path(place, interface).exists() for place in places):
        pytest.skip("Model Runner V2 has logits processors since vLLM 0.31")


def engine_environment(runner: str, changes: Mapping[str, str] | None = None) -> dict[str, str]:
    """Returns the environment of an engine process, free of the caller's own settings.

    Skips the test where vLLM has no logits processors for *runner*.
    """
    skip_without(runner)
    inherited = {key: value for key, value in os.environ.items() if not key.startswith("QR_")}
    return {
        **inherited,
        "VLLM_CPU_KVCACHE_SPACE": "1",
        "VLLM_LOGGING_LEVEL": "ERROR",
        "HF_HUB_OFFLINE": "1",
        "PYTHONUNBUFFERED": "1",
        # The model is tiny, and another engine may use the other core.
        "OMP_NUM_THREADS": "1",
        **RUNNER_VARIABLES[runner],
        **(changes or {}),
    }


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory of a small trained model; ``QR_TINY_MODEL_DIR`` names a ready one."""
    ready = os.environ.get("QR_TINY_MODEL_DIR")
    if ready:
        return Path(ready)
    directory = tmp_path_factory.mktemp("model") / "tiny"
    command = [sys.executable, "-m", "qr_sampler_cli", "tiny-model", str(directory)]
    subprocess.run([*command, "--steps", "20"], check=True)
    return directory


@pytest.fixture(scope="session")
def run_engine_script() -> Callable[..., Any]:
    """Runs Python source with an in-process engine and returns the finished process."""

    def run(
        source: str, *, arguments: Sequence[str], env: Mapping[str, str], runner: str
    ) -> subprocess.CompletedProcess[str]:
        variables = {"VLLM_ENABLE_V1_MULTIPROCESSING": "0", **env}
        return subprocess.run(
            [sys.executable, "-c", source, *arguments],
            env=engine_environment(runner, variables),
            capture_output=True,
            text=True,
            timeout=SCRIPT_TIMEOUT_S,
            check=False,
        )

    return run


def result_of(done: subprocess.CompletedProcess[str]) -> Any:
    """Returns what a script has printed as its result; fails with its output if it has not."""
    lines = [line for line in done.stdout.splitlines() if line.startswith("RESULT ")]
    assert done.returncode == 0, done.stdout + done.stderr
    assert lines, done.stdout + done.stderr
    return json.loads(lines[-1].removeprefix("RESULT "))


class OfflineEngine:
    """Generates with one engine in a fresh process and reads its ledger."""

    generate_script = GENERATE

    def __init__(self, run: Callable[..., Any], model: Path, ledger: Path, runner: str) -> None:
        self._run = run
        self.model = model
        self.ledger = ledger
        self.runner = runner

    def script(
        self, source: str, task: Mapping[str, Any], env: Mapping[str, str] | None = None
    ) -> subprocess.CompletedProcess[str]:
        """Runs Python source that finds *task* in its first argument."""
        variables = {
            "QR_ENTROPY_SOURCE_TYPE": "system",
            "QR_FALLBACK_MODE": "error",
            "QR_LEDGER_DIR": str(self.ledger),
            **(env or {}),
        }
        arguments = [json.dumps({"model": str(self.model), **task})]
        done: subprocess.CompletedProcess[str] = self._run(
            textwrap.dedent(PREAMBLE) + textwrap.dedent(source),
            arguments=arguments,
            env=variables,
            runner=self.runner,
        )
        return done

    def result(
        self, source: str, task: Mapping[str, Any], env: Mapping[str, str] | None = None
    ) -> Any:
        """Returns what such a script has printed as its result."""
        return result_of(self.script(source, task, env))

    def generate(
        self, task: Mapping[str, Any], env: Mapping[str, str] | None = None
    ) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
        """Returns the first output of every request and the records of the ledger."""
        outputs = self.result(GENERATE, task, env)["outputs"]
        return [samples[0] for samples in outputs], self.lines()

    def lines(self) -> list[dict[str, Any]]:
        """Returns the records in the one ledger file."""
        (file,) = ledgers_in(self.ledger)
        return records_in(file)


@pytest.fixture(scope="session")
def offline_engine(
    run_engine_script: Callable[..., Any],
    tiny_model: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> Callable[[str], OfflineEngine]:
    """Makes engines, each with a ledger directory of its own, for a given model runner."""

    def make(runner: str) -> OfflineEngine:
        ledger = tmp_path_factory.mktemp("ledger") / runner
        return OfflineEngine(run_engine_script, tiny_model, ledger, runner)

    return make


class Site:
    """A directory of modules with entry points, as pip would have installed them."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    def install(self, module: str, source: str, entry_points: Mapping[str, str]) -> None:
        """Writes a module and its metadata.

        Args:
            module: Name of the module.
            source: Its text.
            entry_points: ``name = module:object`` by group.
        """
        distribution = module.replace("_", "-")
        metadata = self.directory / f"{module}-1.0.dist-info"
        metadata.mkdir(parents=True)
        lines = [f"[{group}]\n{line}\n" for group, line in entry_points.items()]
        (metadata / "entry_points.txt").write_text("".join(lines))
        (metadata / "METADATA").write_text(
            f"Metadata-Version: 2.1\nName: {distribution}\nVersion: 1.0\n"
        )
        (self.directory / f"{module}.py").write_text(textwrap.dedent(source))


@pytest.fixture
def site(tmp_path: Path) -> Site:
    """An empty site directory; ``PYTHONPATH`` has to name it."""
    return Site(tmp_path / "site")


DRAWS = """
    import os
    from qr_sampler import EntropySource, EntropyUnavailableError

    class NotedSource(EntropySource):
        blocks = False
        # What is drawn is compared to the byte, or chosen: a start-up test would shift it.
        min_entropy_per_byte = 0.0

        def get_random_bytes(self, n):
            data = self.next(n)
            with open(os.environ["QR_TEST_DRAWS"], "a") as file:
                file.write(f"{os.getpid()} {data.hex()}\\n")
            return data

    class LoggedSource(NotedSource):
        name = "logged"

        def next(self, n):
            return os.urandom(n)

    class ReplayedSource(NotedSource):
        name = "replayed"
        position = 0

        def next(self, n):
            with open(os.environ["QR_TEST_STREAM"], "rb") as file:
                file.seek(self.position)
                data = file.read(n)
            self.position += n
            if len(data) < n:
                raise EntropyUnavailableError(self.name, "the recording is at its end")
            return data
"""


class DrawsOnFile:
    """Sources that write down every draw, and one that hands out a recording."""

    def __init__(self, site: Site, directory: Path) -> None:
        self._site = site
        self._directory = directory
        self._runs = 0
        sources = "\n".join(
            f"{name.lower()} = qr_draws:{name}Source" for name in ("Logged", "Replayed")
        )
        site.install("qr_draws", DRAWS, {"qr_sampler.entropy_sources": sources})

    def recording(self) -> dict[str, str]:
        """Returns the environment of an engine that draws from the operating system."""
        return self._environment("logged")

    def replaying(self, stream: bytes) -> dict[str, str]:
        """Returns the environment of an engine whose draws are those bytes, one after the other."""
        file = self._directory / f"stream-{self._runs}"
        file.write_bytes(stream)
        return {**self._environment("replayed"), "QR_TEST_STREAM": str(file)}

    def draws(self) -> list[bytes]:
        """Returns the draws of the engine whose environment was asked for last."""
        return [bytes.fromhex(line.split()[1]) for line in self._lines()]

    def processes(self) -> set[str]:
        """Returns the processes that made these draws."""
        return {line.split()[0] for line in self._lines()}

    def _environment(self, source: str) -> dict[str, str]:
        self._runs += 1
        inherited = os.environ.get("PYTHONPATH")
        paths = [str(self._site.directory), *([inherited] if inherited else [])]
        return {
            "PYTHONPATH": os.pathsep.join(paths),
            "QR_ENTROPY_SOURCE_TYPE": source,
            "QR_TEST_DRAWS": str(self._file()),
            # No draw is given up, however busy the machine is.
            "QR_CB_MIN_TIMEOUT_MS": "60000",
        }

    def _file(self) -> Path:
        return self._directory / f"draws-{self._runs}"

    def _lines(self) -> list[str]:
        return self._file().read_text().splitlines()


@pytest.fixture
def draws_on_file(site: Site, tmp_path: Path) -> DrawsOnFile:
    """Sources named ``logged`` and ``replayed``."""
    return DrawsOnFile(site, tmp_path)


def _free_port() -> int:
    """Finds a port below those that the system hands out by itself.

    It is often a minute until an engine listens at it, and nothing else may take it until then:
    workers of pytest-xdist choose from different ports.
    """
    worker = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
    workers = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
    for port in random.sample(range(10_000 + worker, 32_768, workers), 100):
        with socket.socket() as listener, suppress(OSError):
            listener.bind(("127.0.0.1", port))
            return port
    raise AssertionError("a hundred ports are in use")


@pytest.fixture(scope="session")
def free_port() -> Callable[[], int]:
    """Finds loopback ports that nobody listens on."""
    return _free_port


class Process:
    """A child process whose output goes to a file."""

    def __init__(self, command: Sequence[str], env: Mapping[str, str], log: Path) -> None:
        self._command = list(command)
        self._env = dict(env)
        self._log = log
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Starts the process unless it runs."""
        if self._process is None or self._process.poll() is not None:
            with self._log.open("ab") as output:
                self._process = subprocess.Popen(
                    self._command,
                    env=self._env,
                    stdout=output,
                    stderr=output,
                    start_new_session=True,
                )

    def send(self, number: signal.Signals) -> None:
        """Sends a signal and waits for the end."""
        if self._process is not None and self._process.poll() is None:
            self._process.send_signal(number)
            self._process.wait(timeout=300)

    def kill(self) -> None:
        """Ends the process and its children without giving them a chance."""
        if self._process is not None and self._process.poll() is None:
            # vLLM's engine and worker processes outlive a killed parent, but stay in its group.
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait(timeout=300)

    def stop(self) -> None:
        """Asks the process to end."""
        self.send(signal.SIGINT)

    def wait_until(self, ready: Callable[[], bool]) -> None:
        """Waits until *ready* says so; fails with the log when the process ends instead."""
        assert self._process is not None
        deadline = time.monotonic() + START_TIMEOUT_S
        while not ready():
            running = self._process.poll() is None
            assert running, self._log.read_text(errors="replace")
            assert time.monotonic() < deadline, self._log.read_text(errors="replace")
            time.sleep(0.2)


@pytest.fixture
def start_process(tmp_path: Path) -> Iterator[Callable[..., Process]]:
    """Starts any commands, which end with the test; with a *runner* they are vLLM's."""
    started: list[Process] = []

    def start(command: Sequence[str], env: Mapping[str, str], runner: str | None = None) -> Process:
        variables = env if runner is None else engine_environment(runner, env)
        process = Process(command, variables, tmp_path / f"log-{len(started)}")
        started.append(process)
        process.start()
        return process

    yield start
    for process in started:
        process.kill()


class EntropyServer(Process):
    """The reference entropy server on a port that it keeps over restarts."""

    def __init__(self, log: Path) -> None:
        self.address = f"127.0.0.1:{_free_port()}"
        command = [sys.executable, str(ENTROPY_SERVER), "--address", self.address]
        super().__init__(command, os.environ, log)

    def start(self) -> None:
        """Starts the server and waits until it accepts connections."""
        super().start()
        self.wait_until(self._accepts)

    def _accepts(self) -> bool:
        host, _, port = self.address.rpartition(":")
        with socket.socket() as probe:
            return probe.connect_ex((host, int(port))) == 0


class OpenAIServer(Process):
    """vLLM's HTTP server with the tiny model."""

    def __init__(
        self,
        model: Path,
        runner: str,
        env: Mapping[str, str],
        log: Path,
        arguments: Sequence[str] = (),
    ) -> None:
        port = _free_port()
        self.url = f"http://127.0.0.1:{port}"
        # The console script of the CPU build looks for a distribution called "vllm" and fails.
        command = [sys.executable, "-m", "vllm.entrypoints.openai.api_server"]
        command += ["--model", str(model), "--served-model-name", "tiny"]
        command += ["--host", "127.0.0.1", "--port", str(port), "--dtype", "float32"]
        command += ["--enforce-eager", "--max-model-len", "256", "--max-num-seqs", "4"]
        command += ["--num-gpu-blocks-override", "64"]
        super().__init__([*command, *arguments], engine_environment(runner, env), log)

    def healthy(self) -> bool:
        """Whether the server answers."""
        try:
            with urllib.request.urlopen(f"{self.url}/health", timeout=5) as response:
                return bool(response.status == 200)
        except OSError:
            return False


@pytest.fixture(scope="session")
def start_entropy_server(
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Callable[[], EntropyServer]]:
    """Starts entropy servers that end with the tests."""
    started: list[EntropyServer] = []

    def start() -> EntropyServer:
        server = EntropyServer(tmp_path_factory.mktemp("entropy") / "log")
        started.append(server)
        server.start()
        return server

    yield start
    for server in started:
        server.kill()


@pytest.fixture(scope="session")
def start_openai_server(
    tiny_model: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Callable[..., OpenAIServer]]:
    """Starts HTTP servers that end with the tests."""
    started: list[OpenAIServer] = []

    def start(
        *, runner: str, env: Mapping[str, str], arguments: Sequence[str] = ()
    ) -> OpenAIServer:
        log = tmp_path_factory.mktemp("vllm") / "log"
        server = OpenAIServer(tiny_model, runner, env, log, arguments)
        started.append(server)
        server.start()
        server.wait_until(server.healthy)
        return server

    yield start
    for server in started:
        server.kill()


TSD_OPTIONS: dict[str, Any] = {
    "worker_cls": "qr_sampler_vllm.tsd.worker.TSDCPUWorker",
    "speculative_config": {
        "method": "custom_class",
        "model": "qr_sampler_vllm.tsd.drafter.TSDDrafter",
        "num_speculative_tokens": 3,
    },
}

TSD_PREAMBLE = """
    import random
    from contextlib import contextmanager, nullcontext

    import numpy as np
    import torch
    from torch._subclasses import FakeTensor
    from vllm import SamplingParams
    from vllm.sampling_params import StructuredOutputsParams
    from vllm.v1.sample import rejection_sampler
    import qr_sampler_vllm

    FORBIDDEN = [
        (torch, ["rand", "randn", "randint", "randperm", "multinomial", "bernoulli", "normal"]),
        (torch.Tensor, ["exponential_", "uniform_", "random_", "bernoulli_", "multinomial"]),
        (np.random, ["default_rng", "random", "rand", "randint", "choice"]),
        (
            rejection_sampler,
            ["expand_batch_to_tokens", "rejection_sample", "generate_uniform_probs",
             "sample_recovered_tokens", "apply_sampling_constraints"],
        ),
    ]

    def states():
        numpy = np.random.get_state()
        return torch.get_rng_state().tolist(), numpy[1].tolist(), numpy[2], random.getstate()

    def forbidden(name, function):
        def refused(*arguments, **options):
            # A compiler calls these to trace them: its tensors hold no numbers, nothing is drawn.
            value = function(*arguments, **options)
            assert isinstance(value, FakeTensor), f"{name} was called"
            return value
        return refused

    @contextmanager
    def no_other_entropy(readers):
        # Whoever reads from the operating system is noted in readers.
        real = os.urandom

        def noted(n):
            readers.add(sys._getframe(1).f_globals["__name__"])
            return real(n)

        replaced = []
        for owner, names in FORBIDDEN:
            for name in names:
                real_one = getattr(owner, name)
                replaced.append((owner, name, real_one))
                setattr(owner, name, forbidden(name, real_one))
        os.urandom = random._urandom = noted
        before = states()
        try:
            yield
        finally:
            os.urandom = random._urandom = real
            for owner, name, value in replaced:
                setattr(owner, name, value)
        assert states() == before, "a generator has moved"

    def parameters(request):
        params = dict(request["params"])
        regex = params.pop("regex", None)
        if regex is not None:
            params["structured_outputs"] = StructuredOutputsParams(regex=regex)
        return SamplingParams(extra_args=request.get("extra"), **params)

    def serve(llm, requests):
        # Everything at once; returns the samples of each request, and who was aborted.
        seen, aborted = {}, set()
        for key, request in requests.items():
            request.setdefault("extra", {})["qr_request_key"] = key
            prompt = {"prompt_token_ids": list(range(300, 300 + request["prompt_tokens"]))}
            llm.llm_engine.add_request(key, prompt, parameters(request))
        while llm.llm_engine.has_unfinished_requests():
            for output in llm.llm_engine.step():
                samples = seen.setdefault(output.request_id, {})
                for sample in output.outputs:
                    samples[sample.index] = (list(sample.token_ids), sample.text)
            for key, request in requests.items():
                count = len(seen.get(key, {}).get(0, ((), ""))[0])
                if key not in aborted and count >= request.get("abort_at", 10**9):
                    aborted.add(key)
                    llm.llm_engine.abort_request([key])
        return {key: list(samples.values()) for key, samples in seen.items()}, sorted(aborted)

    def preemptions(llm):
        name = "vllm:num_preemptions"
        return sum(metric.value for metric in llm.get_metrics() if metric.name == name)
"""
"""What scripts with a TSD engine go on with."""


def measured() -> dict[str, str]:
    """Returns what makes an engine's process count for coverage, where the tests are measured."""
    if "COVERAGE_FILE" not in os.environ:
        return {}
    return {"COVERAGE_PROCESS_START": str(Path(__file__).with_name("engine_coverage.ini"))}


class TSD:
    """What engines with drafts of three tokens need."""

    options = TSD_OPTIONS

    def __init__(self, directory: Path) -> None:
        self.proposer = directory / "proposer.npz"

    def save(
        self,
        unigram: Mapping[int, float],
        vocab_size: int = 2048,
        temperature: float | None = None,
    ) -> None:
        """Saves a proposer that knows nothing but how frequent tokens are.

        Args:
            unigram: Probabilities of tokens; what they leave is spread over all others.
            vocab_size: Number of tokens.
            temperature: Of these probabilities, to which requests fit them; ``None`` for whatever
                they have.
        """
        import numpy as np

        from qr_sampler_tsd import craft_relative_psi
        from qr_sampler_tsd.proposers import BigramProposer, save_proposer

        rest = (1.0 - sum(unigram.values())) / (vocab_size - len(unigram))
        law = np.full(vocab_size, rest)
        law[list(unigram)] = list(unigram.values())
        psi = craft_relative_psi(law, len(unigram))
        save_proposer(self.proposer, BigramProposer.from_payloads(psi, {}, temperature))

    def environment(self, mode: str, **changes: str) -> dict[str, str]:
        """Returns the environment of an engine in *mode*."""
        # Threads of OpenMP that wait for each other take most of the time of a tiny model.
        threads = {"OMP_NUM_THREADS": "1", "VLLM_CPU_OMP_THREADS_BIND": "nobind"}
        own = {"QR_TSD_PROPOSER": str(self.proposer), "QR_TSD_MODE": mode}
        # The cache of digests is written under names that come from the operating system.
        undigested = {"QR_LEDGER_MODEL_DIGEST": "false"}
        return {**threads, **measured(), **undigested, **own, **changes}

    def script(self, body: str) -> str:
        """Returns Python source: *body* after what all scripts begin with."""
        return textwrap.dedent(TSD_PREAMBLE) + textwrap.dedent(body)


@pytest.fixture
def tsd(tmp_path: Path) -> TSD:
    """What engines that draft with TSD need; a proposer is yet to be saved."""
    return TSD(tmp_path)
