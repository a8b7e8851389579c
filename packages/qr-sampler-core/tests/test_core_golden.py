# SPDX-License-Identifier: Apache-2.0
"""Golden vectors: what identical bytes, logits and parameters must go on choosing.

``docs/numerics.md`` says which of these values may ever change. To write them again, which needs an
entry under *Numerics* in the changelog::

    python packages/qr-sampler-core/tests/test_core_golden.py --write
"""

from __future__ import annotations

import hashlib
import json
import math
import struct
import sys
from collections.abc import Iterator
from fractions import Fraction
from itertools import chain
from pathlib import Path
from typing import Any, Final

import numpy as np
import pytest

from qr_sampler import (
    AMPLIFIERS,
    TEMPERATURE_STRATEGIES,
    Baseline,
    FastSelector,
    ReferenceSelector,
    Rows,
    SamplingParameters,
    SamplingPipeline,
    Selector,
    Settings,
    SignalAmplifier,
)
from qr_sampler.amplification.laws.fair_bits import LAW_ERROR
from qr_sampler.arrays import ByteBlocks, Logits
from qr_sampler.temperature import STATISTICS_STEP
from qr_sampler.temperature.base import rounded
from qr_sampler.testing import ConstantEntropySource

DATA: Final = Path(__file__).parent / "data"
SELECTORS: Final[tuple[type[Selector[Any, Any]], ...]] = (ReferenceSelector, FastSelector)
Case = dict[str, Any]


def load(name: str) -> list[Case]:
    cases: list[Case] = json.loads((DATA / f"golden_{name}.json").read_text("utf-8"))
    return cases


def golden(name: str) -> Any:
    """Parametrises a test with the cases of a file, which the writer can do without."""
    path = DATA / f"golden_{name}.json"
    cases = load(name) if path.exists() else []
    return pytest.mark.parametrize("case", cases, ids=[case["name"] for case in cases])


# Rules that make rows and blocks from whole numbers alone, the same on every machine.


def logits_of(spec: Case) -> Logits:
    """Returns the row that *spec* describes. Shape ``(1, V)``."""
    if "float32" in spec:
        data = bytes.fromhex("".join(spec["float32"]))
        return np.frombuffer(data, dtype=">f4").astype(np.float32)[np.newaxis]
    size = spec["vocab_size"]
    places = (np.arange(size, dtype=np.int64) * spec["times"] + spec["plus"]) % size
    if spec["rule"] == "octaves":
        # The number of binary digits: frexp is exact.
        levels = np.frexp(places.astype(np.float64))[1]
    else:
        levels = places // spec["ties"]
    return (levels * -spec["step"]).astype(np.float32)[np.newaxis]


def block_of(spec: Case) -> ByteBlocks:
    """Returns the block that *spec* describes. Shape ``(1, n)``."""
    size = spec["size"]
    if "sha256" in spec:
        digests = (
            hashlib.sha256(f"{spec['sha256']} {index}".encode()).digest()
            for index in range(size // 32 + 1)
        )
        data = b"".join(digests)[:size]
    else:
        data = bytes((index * spec["times"] + spec["plus"]) % 256 for index in range(size))
    return np.frombuffer(data, dtype=np.uint8)[np.newaxis]


# What is tested.


def select(selector: Selector[Any, Any], case: Case) -> Iterator[tuple[int, int, float, int]]:
    """Yields token, rank, probability and number of candidates for each u of a case."""
    temperature = np.array([float.fromhex(case["temperature"])])
    rows = Rows([SamplingParameters(**case["parameters"])])
    measurement = selector.measure(logits_of(case["logits"]), rows, temperature)
    plan = selector.prepare(measurement, temperature)
    for pick in case["picks"]:
        found = selector.pick(plan, np.array([float.fromhex(pick["u"])]))
        columns = (found.token_ids, found.rank, found.probability, found.candidates)
        yield tuple(column.item() for column in columns)


@pytest.mark.parametrize("selector", SELECTORS)
@golden("selection")
def test_tokens(case: Case, selector: type[Selector[Any, Any]]) -> None:
    exact = selector is ReferenceSelector
    for pick, found in zip(case["picks"], select(selector(), case), strict=True):
        token, rank, probability, candidates = found
        assert (token, rank, candidates) == (pick["token"], pick["rank"], case["candidates"])
        share = pick["mass"] / case["total"]
        assert probability == pytest.approx(share, rel=0.0 if exact else 1e-5, abs=0.0)


def amplifier_of(case: Case) -> SignalAmplifier:
    kind = AMPLIFIERS.load(case["amplifier"])
    if "baseline" not in case:
        return kind()
    figures = {**case["baseline"], "block_sums": tuple(case["baseline"]["block_sums"])}
    return kind(baseline=Baseline(**figures))  # type: ignore[call-arg]


@golden("amplification")
def test_uniform_numbers(case: Case) -> None:
    (u,) = amplifier_of(case).amplify(block_of(case["block"])).u.tolist()
    assert abs(u - float.fromhex(case["u"])) <= float.fromhex(case["tolerance"])


def temperature_of(case: Case, selector: Selector[Any, Any]) -> tuple[float, float, float, float]:
    """Returns temperature, entropy, varentropy, both rounded, and deviation."""
    rows = Rows([SamplingParameters(**case["parameters"])], [float.fromhex(case["running"])])
    pipeline = SamplingPipeline(Settings(), ConstantEntropySource(), selector)
    logits = logits_of(case["logits"])
    plan = pipeline.prepare(logits, rows)
    measured = selector.measure(logits, rows, plan.temperature.temperature)
    return (
        plan.temperature.temperature.item(),
        rounded(plan.temperature.entropy_nats).item(),
        rounded(plan.temperature.varentropy_nats2).item(),
        measured.logit_deviation.item(),
    )


@pytest.mark.parametrize("selector", SELECTORS)
@golden("temperature")
def test_temperatures(case: Case, selector: type[Selector[Any, Any]]) -> None:
    temperature, entropy, varentropy, deviation = temperature_of(case, selector())
    wanted = float.fromhex(case["temperature"])
    assert abs(temperature - wanted) <= float.fromhex(case["tolerance"])
    assert deviation == float.fromhex(case["deviation"])
    if case["parameters"]["temperature_strategy"] != "fixed":
        steps = (entropy / STATISTICS_STEP, varentropy / STATISTICS_STEP)
        assert steps == (case["entropy_steps"], case["varentropy_steps"])


def test_every_component_and_filter_is_covered() -> None:
    assert {case["amplifier"] for case in load("amplification")} == set(AMPLIFIERS.names())
    chosen = {case["parameters"]["temperature_strategy"] for case in load("temperature")}
    assert chosen == set(TEMPERATURE_STRATEGIES.names())
    filters = {"top_n_sigma", "top_k", "min_p", "top_p", "typical_p", "truncate_first"}
    used = [set(case["parameters"]) for case in load("selection")]
    assert set().union(*used) == filters
    assert all({name} in used for name in filters - {"truncate_first"})


def test_a_unit_more_would_be_noticed() -> None:
    """Most cases contain the last u of a rank and the float64 after it, which is of the next."""
    sharp = 0
    for case in load("selection"):
        picks = [(float.fromhex(pick["u"]), pick["rank"]) for pick in case["picks"]]
        pairs = [(rank, math.nextafter(u, 1.0)) for u, rank in picks]
        sharp += any((u, rank + 1) in picks for rank, u in pairs)
    assert sharp >= 20


# The writer.

PLAIN: Final = [2.0, 1.5, 1.5, 1.0, 0.25, -0.5, -math.inf, 1.5, -3.0, -9.0, 0.25, -24.0]
EDGES: Final = [0.0, -24.95, -24.953125, -24.9609375, -24.96875, -1e30, -8.3125, -math.inf]
BFLOAT16: Final = [18.125, 18.25, 18.125, 18.25, 17.0, 18.125, 16.875, 17.0, 18.25, 2.0, 17.0, 18.0]
LADDER: Final = {"rule": "ladder", "times": 40_503, "plus": 17, "ties": 64, "step": 2.0**-5}
OCTAVES: Final = {"rule": "octaves", "times": 51_721, "plus": 3, "step": 0.75}
ALL: Final = {"top_n_sigma": 2.0, "top_k": 9, "min_p": 0.01, "top_p": 0.9, "typical_p": 0.8}


def row(*values: float) -> Case:
    return {"float32": [struct.pack(">f", value).hex() for value in values]}


def selection_inputs() -> Iterator[tuple[str, Case, Case, float]]:
    """Yields name, logits, parameters and temperature."""
    plain = row(*PLAIN)
    yield "plain", plain, {}, 1.0
    yield "cool", plain, {}, 0.7
    yield "one token", row(-3.5), {}, 0.7
    yield "one survivor", row(-math.inf, -math.inf, 0.5, -math.inf), {}, 1.0
    yield "signed zeros", row(0.0, -0.0, -1.0, 0.0, -0.0), {}, 1.0
    yield "bfloat16 ties", row(*BFLOAT16), {}, 0.9
    yield "masses around zero", row(*EDGES), {}, 1.0
    yield "coldest", row(1.0, 1.0 - 2.0**-12, 1.0 - 2.0**-7), {}, 1e-3
    yield "hottest", plain, {}, 1e3
    yield "huge logits", row(3e38, -3e38, 1e30, 3e38), {}, 1.0
    for name, value in [*ALL.items(), ("top_k", 2), ("top_p", 0.999), ("typical_p", 0.3)]:
        yield f"{name} {value}", plain, {name: value}, 0.7
    yield "top_k among ties", row(*BFLOAT16), {"top_k": 2}, 0.9
    yield "all filters", plain, ALL, 1.3
    yield "all filters first", plain, {**ALL, "truncate_first": True}, 1.3
    for name in ("top_n_sigma", "min_p", "top_p", "typical_p"):
        yield f"{name} first", plain, {name: ALL[name], "truncate_first": True}, 2.5
    large = {**LADDER, "vocab_size": 151_936}
    yield "large", large, {}, 0.7
    yield "large top_p", large, {"top_p": 0.95}, 1.0
    yield "large typical_p", large, {"typical_p": 0.9}, 1.0
    yield "large all filters", large, {**ALL, "top_k": 1000}, 1.0
    yield "large top_n_sigma", large, {"top_n_sigma": 1.0}, 1.0
    yield "long tail", {**OCTAVES, "vocab_size": 151_936}, {}, 1.0
    yield "long tail min_p", {**OCTAVES, "vocab_size": 151_936}, {"min_p": 1e-4}, 1.2
    yield "last of 35 bits", {**LADDER, "vocab_size": 2**18}, {}, 8.0
    yield "first of 34 bits", {**LADDER, "vocab_size": 2**18 + 1}, {}, 8.0


def selection_case(name: str, logits: Case, parameters: Case, temperature: float) -> Case:
    selector = ReferenceSelector()
    value = np.array([temperature])
    rows = Rows([SamplingParameters(**parameters)])
    plan = selector.prepare(selector.measure(logits_of(logits), rows, value), value)
    start, stop = plan.start.item(), plan.stop.item()
    kept = plan.cumulative[0, start : stop + 1] - plan.cumulative[0, start]
    total = int(kept[-1])
    inside = kept[(kept > 0) & (kept < total)].tolist()
    edges = chain.from_iterable(
        last_and_next(goal, total) for goal in inside[::-1][:1] + inside[:2]
    )
    picks = []
    for u in sorted({2.0**-53, 0.25, 0.5, 0.9, 0.999, 1.0 - 2.0**-53, *edges}):
        found = selector.pick(plan, np.array([u]))
        rank = found.rank.item()
        mass = int(plan.cumulative[0, rank + 1] - plan.cumulative[0, rank])
        picks.append({"u": u.hex(), "token": found.token_ids.item(), "rank": rank, "mass": mass})
    return {
        "name": name,
        "logits": logits,
        "parameters": parameters,
        "temperature": temperature.hex(),
        "candidates": stop - start,
        "total": total,
        "picks": picks,
    }


def last_and_next(goal: int, total: int) -> tuple[float, float]:
    """Returns the largest float64 that is at most goal / total, and the one after it."""
    ratio = Fraction(goal, total)
    last = goal / total
    if Fraction(last) > ratio:
        last = math.nextafter(last, 0.0)
    return last, math.nextafter(last, 1.0)


def baseline_of(size: int) -> Case:
    offsets = (-900, -300, -80, -80, 0, 1, 40, 350, 999)
    return {
        "source": "lamp",
        "source_distribution": "",
        "source_version": "",
        "byte_mean": 127.25,
        "byte_std": 73.5,
        "ones_fraction": 0.501,
        "byte_correlation_factor": 0.96875,
        "bit_correlation_factor": 1.0625,
        "blocks": 9,
        "block_bytes": size,
        "block_sums": [size * 127 + offset for offset in offsets],
        "wall_time_ns": 0,
    }


BLOCKS: Final[dict[str, Case]] = {
    "16 bytes": {"sha256": "dawn", "size": 16},
    "1,000 bytes": {"sha256": "noon", "size": 1_000},
    "10,240 bytes": {"sha256": "dusk", "size": 10_240},
    "counting": {"times": 37, "plus": 11, "size": 64},
    "zeros": {"times": 0, "plus": 0, "size": 64},
    "ones": {"times": 0, "plus": 255, "size": 64},
}


NUMBERS: Final[dict[str, Case]] = {
    "dawn": {"sha256": "dawn", "size": 8},
    "counting": {"times": 37, "plus": 11, "size": 8},
    "zeros": {"times": 0, "plus": 0, "size": 8},
    "ones": {"times": 0, "plus": 255, "size": 8},
}
"""Blocks that are one number."""


def amplification_inputs() -> Iterator[Case]:
    for amplifier in AMPLIFIERS.names():
        blocks = NUMBERS if amplifier == "server" else BLOCKS
        for name, block in blocks.items():
            case = {"name": f"{amplifier}, {name}", "amplifier": amplifier, "block": block}
            if amplifier != "ecdf":
                yield case
            if amplifier in ("ecdf", "zscore_mean", "bit_zscore"):
                baseline = baseline_of(block["size"])
                yield {**case, "name": f"{case['name']}, baseline", "baseline": baseline}


def amplification_case(case: Case) -> Case:
    (u,) = amplifier_of(case).amplify(block_of(case["block"])).u.tolist()
    # erfc of the C library; sines, cosines and sums of NumPy; nothing but IEEE 754 arithmetic.
    inexact = {
        "zscore_mean": 4 * math.ulp(u),
        "bit_zscore": 4 * math.ulp(u),
        "exact_sum": 2 * LAW_ERROR,
        "exact_bits": 2 * LAW_ERROR,
    }
    tolerance = float(inexact.get(case["amplifier"], 0.0))
    return {**case, "u": u.hex(), "tolerance": tolerance.hex()}


def temperature_inputs() -> Iterator[Case]:
    rows = {
        "plain": row(*PLAIN),
        "one token": row(-3.5),
        "flat": {**LADDER, "vocab_size": 1_000, "ties": 1_000},
        "long tail": {**OCTAVES, "vocab_size": 151_936},
    }
    for name, logits in rows.items():
        for strategy in TEMPERATURE_STRATEGIES.names():
            parameters = {"temperature_strategy": strategy, "top_n_sigma": 1.0}
            case = {"name": f"{strategy}, {name}", "logits": logits, "running": math.nan.hex()}
            yield {**case, "parameters": parameters}
    yield {
        "name": "varentropy with drift",
        "logits": rows["plain"],
        "running": (1.25).hex(),
        "parameters": {
            "temperature_strategy": "varentropy",
            "top_n_sigma": 1.0,
            "varentropy_drift_weight": 0.4,
        },
    }
    yield {
        "name": "dynatemp with exponent",
        "logits": rows["plain"],
        "running": math.nan.hex(),
        "parameters": {
            "temperature_strategy": "dynatemp",
            "top_n_sigma": 1.0,
            "dynatemp_exponent": 1.5,
        },
    }


def temperature_case(case: Case) -> Case:
    temperature, entropy, varentropy, deviation = temperature_of(case, ReferenceSelector())
    # These add and multiply; the others take powers, exponentials or logarithms.
    exact = case["parameters"]["temperature_strategy"] in ("fixed", "varentropy")
    return {
        **case,
        "entropy_steps": int(entropy / STATISTICS_STEP),
        "varentropy_steps": int(varentropy / STATISTICS_STEP),
        "deviation": deviation.hex(),
        "temperature": temperature.hex(),
        "tolerance": (0.0 if exact else 4.0 * math.ulp(temperature)).hex(),
    }


def write(name: str, cases: list[Case]) -> None:
    """One case per line, so that a change shows which cases it changed."""
    text = ",\n".join(json.dumps(case, separators=(",", ":"), allow_nan=False) for case in cases)
    (DATA / f"golden_{name}.json").write_text(f"[\n{text}\n]\n", "utf-8")


if __name__ == "__main__":
    if sys.argv[1:] != ["--write"]:
        sys.exit(__doc__)
    write("selection", [selection_case(*inputs) for inputs in selection_inputs()])
    write("amplification", [amplification_case(case) for case in amplification_inputs()])
    write("temperature", [temperature_case(case) for case in temperature_inputs()])
