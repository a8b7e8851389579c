# SPDX-License-Identifier: Apache-2.0
"""What the package imports, exports and does without what it could use."""

from __future__ import annotations

import ast
import importlib.metadata
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

import qr_sampler_accel
from qr_sampler import BlockCounts, FastSelector, Rows, SamplingParameters
from qr_sampler.health import HealthPolicy
from qr_sampler.selection.fast.passes import RowPasses

ROOT = Path(qr_sampler_accel.__file__).parent
ALLOWED = {
    "host/arithmetic": {"numba"},
    "device": {"torch"},
    "device/triton": {"torch", "triton"},
}
"""What the modules of a folder may need beside core and NumPy."""


def imports_of(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path} uses a relative import"
            assert node.module is not None
            yield node.module


@pytest.mark.parametrize(
    "path", sorted(ROOT.rglob("*.py")), ids=lambda path: str(path.relative_to(ROOT))
)
def test_modules_import_what_their_folder_may(path: Path) -> None:
    allowed = {"numpy", "qr_sampler", "qr_sampler_accel"}
    allowed |= ALLOWED.get(path.parent.relative_to(ROOT).as_posix(), set())
    foreign = {name.partition(".")[0] for name in imports_of(path)} - allowed
    assert not foreign - sys.stdlib_module_names, path


def test_the_import_needs_neither_numba_nor_torch() -> None:
    code = (
        "import sys, qr_sampler_accel;"
        "assert not {'numba', 'torch', 'triton', 'vllm'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_without_numba_the_host_works_in_numpy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("qr_sampler_accel.factories.find_spec", lambda name: None)
    for name in ("passes", "byte_counts", "health_pass", "warm_up"):
        monkeypatch.setitem(sys.modules, f"qr_sampler_accel.host.{name}", None)
    assert not qr_sampler_accel.has_compiler()
    assert qr_sampler_accel.block_counts() is BlockCounts
    assert qr_sampler_accel.health_monitor(HealthPolicy()).observe(bytes(9)) is not None
    qr_sampler_accel.warm_up(logits_on_host=True)
    selector = qr_sampler_accel.host_selector()
    assert chosen_by(selector) == [1]
    assert type(selector._passes) is RowPasses


@pytest.mark.heavy
def test_with_numba_the_host_works_in_compiled_loops() -> None:
    pytest.importorskip("numba", reason="needs the extra numba")
    selector = qr_sampler_accel.host_selector()
    assert chosen_by(selector) == [1]
    assert type(selector._passes) is not RowPasses
    assert qr_sampler_accel.block_counts() is not BlockCounts


def test_the_selector_for_tensors_needs_torch() -> None:
    pytest.importorskip("torch", reason="needs the extra torch")
    from qr_sampler_accel.device.selector import TorchSelector

    assert type(qr_sampler_accel.device_selector()) is TorchSelector


def test_versions_and_names() -> None:
    assert qr_sampler_accel.__version__ == importlib.metadata.version("qr-sampler-accel")
    assert (ROOT / "py.typed").exists()
    for name in qr_sampler_accel.__all__:
        assert getattr(qr_sampler_accel, name).__doc__
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = qr_sampler_accel.nothing


def chosen_by(selector: FastSelector) -> list[int]:
    logits = np.array([[0.0, 2.0, 1.0]], dtype=np.float32)
    rows, one = Rows([SamplingParameters()]), np.ones(1)
    plan = selector.prepare(selector.measure(logits, rows, one), one)
    tokens: list[int] = selector.pick(plan, np.array([0.5])).token_ids.tolist()
    return tokens
