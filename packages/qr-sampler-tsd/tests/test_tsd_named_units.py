# SPDX-License-Identifier: Apache-2.0
"""Units by name, and the guard around those of other projects."""

from __future__ import annotations

import sys
from importlib.metadata import EntryPoint, EntryPoints
from typing import Any

import numpy as np
import pytest

from qr_sampler import ComponentError, EntropyUnavailableError, PluginLoadError
from qr_sampler.testing import ConstantEntropySource
from qr_sampler_tsd import EntropyUniforms, HeadTailLaw, Role, SeededUniforms, UniformSource
from qr_sampler_tsd.errors import GateError, MixingError, UnitError
from qr_sampler_tsd.gate import require_gate, run_gate
from qr_sampler_tsd.golden import golden_payloads
from qr_sampler_tsd.tsu import (
    UNIT_NAMES,
    GuardedUnit,
    PBitGibbsTSU,
    PBitTreeTSU,
    SimTSU,
    TSUAdapter,
    named_unit,
    sweeps_needed,
)
from qr_sampler_tsd.tsu.named_units import DEFAULT_SWEEPS, UNITS

GOLDEN = golden_payloads()


@pytest.mark.parametrize(
    ("spec", "name"),
    [
        ("simulated", "SimTSU"),
        ("sim", "SimTSU"),
        ("pbit_tree", "PBitTreeTSU(dac_bits=None)"),
        ("tree:dac_bits=12", "PBitTreeTSU(dac_bits=12)"),
        ("gibbs", f"PBitGibbsTSU(sweeps={DEFAULT_SWEEPS}, tv_target=0.001)"),
        ("gibbs:tv_target=0.5,sweeps=2", "PBitGibbsTSU(sweeps=2, tv_target=0.5)"),
    ],
)
def test_names_and_options(spec: str, name: str) -> None:
    assert named_unit(spec).name == name


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("", "unit='' is unknown; there are: simulated, thrml, thrml_tree, pbit_tree, gibbs, sim"),
        ("Gibbs", "unit='Gibbs' is unknown"),
        ("mine:a=1", "'mine' takes no options here"),
        ("thrml:a=1", "'a=1' is no option; .* there are: none"),
        ("gibbs:", "'' is no option; .* there are: sweeps, tv_target"),
        ("gibbs:sweeps=3,sweeps=4", "'sweeps=4' is no option; give each .* at most once"),
        ("gibbs:sweeps=many", "sweeps='many' is not a number"),
        ("gibbs:tv_target=nan", "tv_target=nan must be above 0"),
        ("tree:dac_bits=1", "dac_bits=1 must be from 2 to 24"),
    ],
)
def test_what_there_is_not(spec: str, message: str) -> None:
    with pytest.raises(UnitError, match=message):
        named_unit(spec)


def test_the_default_sweeps_mix_the_payloads_of_the_experiments() -> None:
    from qr_sampler_tsd import craft_psi

    p = np.random.default_rng(7).dirichlet(np.ones(1000))
    assert 16 < sweeps_needed(craft_psi(p, 64), 1e-3) <= DEFAULT_SWEEPS


@pytest.mark.parametrize("name", [name for name in UNIT_NAMES if "thrml" not in name])
def test_no_draw_takes_more_uniforms_than_its_bound(name: str) -> None:
    check_bound(named_unit(name))


@pytest.mark.parametrize("name", ["thrml", "thrml_tree"])
def test_no_draw_of_thrml_does_either(name: str) -> None:
    pytest.importorskip("thrml", reason="needs the extra thrml")
    check_bound(named_unit(name))


def check_bound(unit: TSUAdapter) -> None:
    for psi in GOLDEN.values():
        most = unit.most_uniforms(psi.law().ids.size + 1)
        taken = set()
        for seed in range(20):
            uniforms = SeededUniforms(seed)
            unit.sample_categorical(psi, 1, uniforms)
            taken.add(uniforms.drawn[Role.PROPOSAL])
        assert max(taken) <= most
        # The token of the tail takes the last one.
        assert max(taken) >= most - 1


# Those of other projects.


class Foreign(SimTSU):
    """Does what a test tells it."""

    answer: Any = None

    def draw_tokens(self, law: HeadTailLaw, batch_size: int, uniforms: UniformSource) -> Any:
        if isinstance(self.answer, BaseException):
            raise self.answer
        if self.answer is None:
            return super().draw_tokens(law, batch_size, uniforms)
        return self.answer


class Unnamed(SimTSU):
    @property
    def name(self) -> str:
        raise RuntimeError("no name")


class Unmakeable(SimTSU):
    def __init__(self) -> None:
        raise OSError("no device at /dev/pbits")


@pytest.fixture
def offered(monkeypatch: pytest.MonkeyPatch) -> None:
    group = "qr_sampler_tsd.units"
    monkeypatch.setitem(sys.modules, "qr_test_units", sys.modules[__name__])
    monkeypatch.setattr(UNITS, "_loaded", {})
    points = EntryPoints(
        EntryPoint(name, f"qr_test_units:{target}", group)
        for name, target in {
            "mine": "Foreign",
            "unnamed": "Unnamed",
            "unmakeable": "Unmakeable",
            "text": "GOLDEN",
            "gibbs": "Foreign",
        }.items()
    )
    monkeypatch.setattr(
        "qr_sampler.components.registry.entry_points", lambda *, group: points.select(group=group)
    )


@pytest.mark.usefixtures("offered")
def test_units_of_other_projects() -> None:
    unit = named_unit("mine")
    assert isinstance(unit, GuardedUnit)
    drawn = unit.sample_categorical(GOLDEN["flat"], 50, SeededUniforms(2))
    due = SimTSU().sample_categorical(GOLDEN["flat"], 50, SeededUniforms(2))
    assert drawn.tokens.tolist() == due.tokens.tolist()
    assert unit.law(GOLDEN["flat"]) is not None
    assert named_unit("gibbs").name.startswith("PBitGibbsTSU"), "ours come first"
    with pytest.raises(UnitError, match=r"there are: simulated.*, mine, text, unmakeable"):
        named_unit("yours")
    with pytest.raises(PluginLoadError, match="not a subclass of TSUAdapter"):
        named_unit("text")
    with pytest.raises(ComponentError, match=r"'unmakeable'.*OSError: no device at /dev/pbits"):
        named_unit("unmakeable")
    with pytest.raises(ComponentError, match="RuntimeError: no name"):
        named_unit("unnamed")


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (ZeroDivisionError("broken"), "ZeroDivisionError: broken"),
        (SystemExit(3), "SystemExit: 3"),
        ([1], "TypeError: .*not list"),
        (np.array([[1]]), r"not ndarray \(1, 1\)"),
        (np.array([1.0]), "array of 1 integers"),
        (np.array([50_257]), "drew the token 50257, which has no probability"),
        (np.array([-1]), "drew the token -1"),
        (np.array([3]), "drew the token 3, which has no probability"),
    ],
    ids=lambda value: type(value).__name__ if not isinstance(value, str) else "",
)
def test_what_a_unit_does_wrong_is_one_kind_of_error(answer: Any, message: str) -> None:
    unit = Foreign()
    unit.answer = answer
    with pytest.raises(ComponentError, match=message):
        GuardedUnit(unit, "mine").sample_categorical(GOLDEN["excluded"], 1, SeededUniforms(1))


def test_our_own_errors_and_the_source_are_not_the_unit() -> None:
    source = EntropyUniforms(ConstantEntropySource(fail_with="unplugged"))
    with pytest.raises(EntropyUnavailableError, match="unplugged"):
        GuardedUnit(PBitTreeTSU(), "tree").sample_categorical(GOLDEN["flat"], 1, source)
    with pytest.raises(MixingError):
        GuardedUnit(PBitGibbsTSU(1), "gibbs").sample_categorical(
            GOLDEN["flat"], 1, SeededUniforms(1)
        )


@pytest.mark.parametrize("most", [0, 2**16 + 1, 1.0, True, None])
def test_bounds_are_bounded(most: Any) -> None:
    unit = Foreign()
    unit.most_uniforms = lambda cells: most  # type: ignore[method-assign]
    with pytest.raises(ComponentError, match="must be an int from 1 to 65536"):
        GuardedUnit(unit, "mine").most_uniforms(64)


def test_laws_are_laws() -> None:
    unit = Foreign()
    unit.law = lambda psi: "uniform"  # type: ignore[assignment]
    with pytest.raises(ComponentError, match=r"law\(\) returned str"):
        GuardedUnit(unit, "mine").law(GOLDEN["flat"])


def test_the_gate_does_not_wait_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    now = iter(range(0, 10_000, 2))
    monkeypatch.setattr("qr_sampler_tsd.gate.time.monotonic", lambda: float(next(now)))
    with pytest.raises(GateError, match="gate of SimTSU takes longer than 5 s"):
        require_gate(SimTSU(), SeededUniforms(1), 1_000, seconds=5)


def test_the_figures_of_the_gate_are_plain() -> None:
    figures = run_gate(SimTSU(), SeededUniforms(1), 2_000).figures
    assert figures["samples"] == 2_000
    assert 0 < figures["smallest_p"] <= 1
    assert 0 < figures["largest_total_variation"] < figures["its_bound"]
