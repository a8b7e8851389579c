# SPDX-License-Identifier: Apache-2.0
"""One wait per step, no large allocation in steady state, and kernels without fused operations."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from qr_sampler import Rows, SamplingParameters

torch = pytest.importorskip("torch", reason="needs torch, which the vllm session installs")

from torch.utils._python_dispatch import TorchDispatchMode  # noqa: E402

from qr_sampler_vllm.torch_passes import TorchPasses  # noqa: E402
from qr_sampler_vllm.torch_selector import TorchSelector, _passes  # noqa: E402
from qr_sampler_vllm.torch_transfer import Download  # noqa: E402

VOCAB = 30_000
LARGE_BYTES = 65_536
"""An allocation of this size is not a few numbers per row."""

HOST_READS = {"_local_scalar_dense", "nonzero", "masked_select", "equal", "is_nonzero", "unique"}
"""Operations that make the host wait for a device."""

needs_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")

FILTERS = {
    "none": SamplingParameters(),
    "all but typical-p": SamplingParameters(top_k=40, min_p=0.01, top_n_sigma=2.0, top_p=0.9),
    "at temperature 1": SamplingParameters(top_k=40, top_p=0.9, truncate_first=True),
}


class Recorder(TorchDispatchMode):
    """Notes every operation, and where its result lies."""

    def __init__(self) -> None:
        super().__init__()
        self.names: set[str] = set()
        self.large: dict[int, str] = {}

    def __torch_dispatch__(
        self, func: Any, _types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        name = func.overloadpacket.__name__
        self.names.add(name)
        for value in result if isinstance(result, (tuple, list)) else (result,):
            if isinstance(value, torch.Tensor):
                storage = value.untyped_storage()
                if storage.nbytes() >= LARGE_BYTES:
                    self.large[storage.data_ptr()] = name
        return result


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Small operations on busy processors wait for each other's threads."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def addresses(value: Any) -> set[int]:
    """Returns where the tensors lie that *value* holds."""
    if isinstance(value, torch.Tensor):
        return {value.untyped_storage().data_ptr()}
    if type(value).__module__.startswith("qr_sampler_vllm"):
        return set().union(*map(addresses, vars(value).values()))
    return set()


def step(selector: TorchSelector, logits: Any, rows: Rows, u: float) -> Any:
    count = len(rows)
    measured = selector.measure(logits, rows, np.full(count, np.nan))
    plan = selector.prepare(measured, np.full(count, 0.8))
    return selector.pick(plan, np.full(count, u))


def random_logits(count: int, device: str = "cpu") -> Any:
    generator = torch.Generator().manual_seed(3)
    return torch.randn((count, VOCAB), generator=generator).mul_(4.0).to(device)


@pytest.mark.parametrize("filters", FILTERS)
def test_nothing_is_read_between_the_wait_and_the_result(
    filters: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any) -> None:
        pytest.fail("a tensor was copied to the host")

    selector, logits, rows = TorchSelector(), random_logits(3), Rows([FILTERS[filters]] * 3)
    measured = selector.measure(logits, rows, np.full(3, np.nan))
    monkeypatch.setattr(Download, "wait", refuse)
    monkeypatch.setattr(torch.Tensor, "cpu", refuse)
    with Recorder() as recorder:
        plan = selector.prepare(measured, np.full(3, 0.8))
        selector.pick(plan, np.full(3, 0.5)).force(logits, [0, 1, 2])
    assert not recorder.names & HOST_READS
    assert {"scatter_add_", "cumsum", "gather", "index_put_"} <= recorder.names


def test_the_recorder_notices_reading_and_allocating() -> None:
    with Recorder() as recorder:
        values = torch.zeros(LARGE_BYTES // 4)
        float(values.sum())
        values[values > 0.0]
    assert {"_local_scalar_dense"} <= recorder.names
    assert values.data_ptr() in recorder.large


@pytest.mark.parametrize("filters", FILTERS)
def test_a_step_allocates_nothing_large(filters: str) -> None:
    selector, logits, rows = TorchSelector(), random_logits(4), Rows([FILTERS[filters]] * 4)
    step(selector, logits, rows, 0.5)
    known = addresses(selector._workspace) | addresses(logits)
    for count in (4, 2, 3):
        part = logits[:count]
        with Recorder() as recorder:
            step(selector, part, Rows([FILTERS[filters]] * count), 0.7)
        assert len(recorder.large) > 5
        assert not {name for place, name in recorder.large.items() if place not in known}
    assert addresses(selector._workspace) | addresses(logits) == known


def test_batches_that_grow_move_seldom() -> None:
    selector, logits = TorchSelector(), random_logits(16)[:, :100].contiguous()
    spaces = set()
    for count in range(1, 17):
        step(selector, logits[:count], Rows([SamplingParameters()] * count), 0.5)
        spaces.add(id(selector._workspace.descent) if selector._workspace else 0)
    assert len(spaces) <= 5


def test_without_triton_the_passes_are_torch_operations(monkeypatch: pytest.MonkeyPatch) -> None:
    plain = TorchPasses(1, 10, torch.device("cpu"))
    monkeypatch.setitem(sys.modules, "qr_sampler_vllm.triton_passes", None)
    for device in ("cpu", "cuda"):
        assert _passes("auto", plain, torch.device(device)) is plain
        assert _passes("torch", plain, torch.device(device)) is plain
    with pytest.raises(ImportError):
        _passes("triton", plain, torch.device("cuda"))


def test_with_triton_the_passes_on_cuda_are_kernels(monkeypatch: pytest.MonkeyPatch) -> None:
    class TritonPasses:
        pass

    module = types.SimpleNamespace(TritonPasses=TritonPasses)
    plain = TorchPasses(1, 10, torch.device("cpu"))
    monkeypatch.setitem(sys.modules, "qr_sampler_vllm.triton_passes", module)
    assert isinstance(_passes("auto", plain, torch.device("cuda")), TritonPasses)
    assert isinstance(_passes("triton", plain, torch.device("cpu")), TritonPasses)
    assert _passes("auto", plain, torch.device("cpu")) is plain


@needs_cuda
@pytest.mark.parametrize("kernels", ["torch", "triton"])
@pytest.mark.parametrize("filters", FILTERS)
def test_a_step_waits_once(kernels: Any, filters: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """PyTorch raises an error wherever an operation of its own waits for the device."""
    waits = []

    def wait(download: Download) -> Any:
        waits.append(download)
        mode = torch.cuda.get_sync_debug_mode()
        torch.cuda.set_sync_debug_mode("default")
        try:
            return original(download)
        finally:
            torch.cuda.set_sync_debug_mode(mode)

    selector, rows = TorchSelector(kernels), Rows([FILTERS[filters]] * 3)
    logits, target = random_logits(3, "cuda"), random_logits(3, "cuda")
    for u in (0.2, 0.4):
        step(selector, logits, rows, u).force(target, [0, 1, 2])
    original = Download.wait
    monkeypatch.setattr(Download, "wait", wait)
    try:
        torch.cuda.set_sync_debug_mode("error")
        measured = selector.measure(logits, rows, np.full(3, 0.8))
        assert len(waits) == 1
        plan = selector.prepare(measured, np.full(3, 0.8))
        result = selector.pick(plan, np.full(3, 0.5))
        result.force(target, [0, 1, 2])
        # The second one belongs to the result of the step before, which nobody had read.
        assert len(waits) == 2
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert target.argmax(dim=1).tolist() == result.token_ids.tolist()


@needs_cuda
@pytest.mark.parametrize("kernels", ["torch", "triton"])
@pytest.mark.parametrize("filters", FILTERS)
def test_the_allocator_is_not_asked_for_large_blocks(kernels: Any, filters: str) -> None:
    selector, logits, rows = (
        TorchSelector(kernels),
        random_logits(16, "cuda"),
        Rows([FILTERS[filters]] * 16),
    )
    counters = ("allocation.large_pool.allocated", "segment.all.allocated")
    for u in (0.2, 0.4, 0.6):
        step(selector, logits, rows, u).fetch()
    before = [torch.cuda.memory_stats()[name] for name in counters]
    for u in np.linspace(0.1, 0.9, 20):
        step(selector, logits, rows, float(u)).fetch()
    assert [torch.cuda.memory_stats()[name] for name in counters] == before


COMPILE = """
import json, re, subprocess, sys, tempfile
from pathlib import Path
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from qr_sampler_vllm import triton_kernels

POINTERS = {"maximum": "*fp32", "inverse": "*fp64", "logits": "*fp32", "base": "*i64",
            "value": "*fp32", "above": "*fp64", "at": "*fp64", "farthest": "*fp32",
            "least": "*fp64", "stride": "i32", "columns": "i32", "unit": "fp32", "shift": "i32"}
CONSTANTS = {"block": 1024, "weighted": True}
NVDISASM = Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / "nvdisasm"

def machine_code(name, options):
    kernel = getattr(triton_kernels, name)
    types = {**POINTERS, "out": "*i32" if name == "find_lowest" else "*fp64"}
    signature = {key: types.get(key, "constexpr") for key in kernel.arg_names}
    constants = {(i,): CONSTANTS[key] for i, key in enumerate(kernel.arg_names) if key in CONSTANTS}
    source = ASTSource(fn=kernel, signature=signature, constexprs=constants)
    compiled = triton.compile(source, target=GPUTarget("cuda", 90, 32), options=options)
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(compiled.asm["cubin"])
        file.flush()
        process = subprocess.run([NVDISASM, file.name], capture_output=True, text=True, check=True)
        return process.stdout

def counts(name, options):
    code = machine_code(name, options)
    return {word: len(re.findall(rf"\\b{word}\\b", code)) for word in ("DFMA", "DMUL", "FTZ")}

found = {name: counts(name, dict(triton_kernels.COMPILE_OPTIONS))
         for name in ("fill_histogram", "add_masses_at", "find_lowest")}
print(json.dumps({**found, "by default": counts("fill_histogram", {})}))
"""


def nvdisasm() -> Path | None:
    triton = importlib.util.find_spec("triton")
    if triton is None or triton.origin is None:
        return None
    path = Path(triton.origin).parent / "backends" / "nvidia" / "bin" / "nvdisasm"
    return path if path.exists() else None


@pytest.fixture(scope="module")
def machine_code(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Per kernel, how often instructions occur with our compile options; in one also without."""
    if nvdisasm() is None:
        pytest.skip("needs a Triton that brings NVIDIA's assembler and disassembler")
    environment = {key: value for key, value in os.environ.items() if key != "TRITON_INTERPRET"}
    environment["TRITON_CACHE_DIR"] = str(tmp_path_factory.mktemp("triton"))
    # The stand-in backend of these tests refuses to be loaded where kernels are compiled.
    environment["TRITON_BACKENDS_IN_TREE"] = "1"
    process = subprocess.run(
        [sys.executable, "-c", COMPILE],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert process.returncode == 0, process.stderr
    return json.loads(process.stdout)


@pytest.mark.parametrize("kernel", ["fill_histogram", "add_masses_at", "find_lowest"])
def test_machine_code_rounds_after_every_operation(kernel: str, machine_code: Any) -> None:
    """A GPU is not needed to compile for one, nor to look for fused multiply-add instructions."""
    ours = machine_code[kernel]
    assert ours["DFMA"] == ours["FTZ"] == 0
    # 16 multiplications per token, 8 tokens per thread.
    assert ours["DMUL"] == 16 * 8
    assert machine_code["by default"]["DFMA"] > 0, "the option has no effect or the search is blind"


def test_the_import_of_the_plugin_does_not_import_torch() -> None:
    code = "import sys, qr_sampler_vllm; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
