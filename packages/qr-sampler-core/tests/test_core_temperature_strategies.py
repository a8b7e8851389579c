# SPDX-License-Identifier: Apache-2.0
"""Temperature strategies against their formulas, their limits and everything that is accepted."""

from __future__ import annotations

import math
from collections.abc import Sequence
from decimal import Decimal, localcontext
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qr_sampler import (
    TEMPERATURE_STRATEGIES,
    DynatempTemperatureStrategy,
    EDTPaperTemperatureStrategy,
    EDTTemperatureStrategy,
    FixedTemperatureStrategy,
    LogitStatistics,
    Rows,
    SamplingParameters,
    SamplingPipeline,
    Settings,
    TemperatureStrategy,
    VarentropyTemperatureStrategy,
    resolve_request,
)
from qr_sampler.settings import MAX_TEMPERATURE, MIN_TEMPERATURE
from qr_sampler.settings.temperature_parameters import TemperatureParameters
from qr_sampler.temperature import rounded
from qr_sampler.testing import ConstantEntropySource

STRATEGIES: dict[str, type[TemperatureStrategy]] = {
    "dynatemp": DynatempTemperatureStrategy,
    "edt": EDTTemperatureStrategy,
    "edt_paper": EDTPaperTemperatureStrategy,
    "fixed": FixedTemperatureStrategy,
    "varentropy": VarentropyTemperatureStrategy,
}
RANGES = {
    "dynatemp": ("dynatemp_min_temp", "dynatemp_max_temp"),
    "edt": ("edt_min_temp", "edt_max_temp"),
    "edt_paper": ("edt_min_temp", "edt_max_temp"),
    "fixed": ("fixed_temperature", "fixed_temperature"),
    "varentropy": ("varentropy_min_temp", "varentropy_max_temp"),
}


def statistics_of(
    entropy: Sequence[float], vocab_size: int, varentropy: Sequence[float] | None = None
) -> LogitStatistics:
    count = len(entropy)
    return LogitStatistics(
        entropy_nats=np.array(entropy, dtype=np.float64),
        varentropy_nats2=np.array([0.0] * count if varentropy is None else varentropy, np.float64),
        logit_deviation=np.full(count, np.nan),
        vocab_size=vocab_size,
    )


def temperatures(
    name: str,
    entropy: Sequence[float],
    vocab_size: int,
    *,
    varentropy: Sequence[float] | None = None,
    running: Sequence[float] | None = None,
    **parameters: Any,
) -> list[float]:
    rows = Rows([SamplingParameters(**parameters)] * len(entropy), running)
    statistics = statistics_of(entropy, vocab_size, varentropy)
    result = STRATEGIES[name]().temperatures(statistics, rows)
    assert result.dtype == np.float64
    assert result.shape == (len(entropy),)
    values: list[float] = result.tolist()
    return values


# Everything that is accepted.


def accepted_values(field: str) -> st.SearchStrategy[float]:
    """Returns every number that the declared bounds of *field* let through."""
    bounds: dict[str, Any] = {}
    for rule in TemperatureParameters.model_fields[field].metadata:
        for kind in ("ge", "gt", "le"):
            if hasattr(rule, kind):
                bounds[kind] = getattr(rule, kind)
    low = bounds.get("ge", bounds.get("gt"))
    return st.floats(low, bounds["le"], exclude_min="gt" in bounds)


NUMERIC = sorted(set(TemperatureParameters.model_fields) - {"temperature_strategy"})


@st.composite
def accepted_parameters(draw: st.DrawFn) -> SamplingParameters:
    values = {name: draw(accepted_values(name), label=name) for name in NUMERIC}
    for low, high in RANGES.values():
        values[low], values[high] = sorted((values[low], values[high]))
    return SamplingParameters.model_validate(values)


def test_every_numeric_field_has_finite_bounds() -> None:
    assert len(NUMERIC) >= 18
    for name in NUMERIC:
        accepted_values(name).validate()


@settings(max_examples=400)
@given(
    parameters=accepted_parameters(),
    share=st.floats(0.0, 1.0),
    vocab_size=st.one_of(st.just(1), st.integers(1, 2**20)),
    varentropy=st.one_of(st.just(0.0), st.floats(0.0, 1e300)),
    past=st.one_of(st.just(math.nan), st.floats(0.0, 1.0)),
    on_grid=st.booleans(),
)
def test_every_accepted_parameter_gives_a_permitted_temperature(
    parameters: SamplingParameters,
    share: float,
    vocab_size: int,
    varentropy: float,
    past: float,
    on_grid: bool,
) -> None:
    largest = math.log(vocab_size)
    entropy = np.array([share * largest])
    statistics = statistics_of(
        (rounded(entropy) if on_grid else entropy).tolist(), vocab_size, [varentropy]
    )
    for name, strategy in STRATEGIES.items():
        with np.errstate(all="raise", under="ignore"):
            (temperature,) = strategy().temperatures(
                statistics, Rows([parameters], [past * largest])
            )
        low, high = (getattr(parameters, field) for field in RANGES[name])
        assert MIN_TEMPERATURE <= low <= temperature <= high <= MAX_TEMPERATURE, name


@pytest.mark.parametrize("name", sorted(STRATEGIES))
@pytest.mark.parametrize("entropy", [0.0, 5e-324, 2.0**-10, math.log(151_936)])
def test_the_ends_of_the_entropy_raise_no_floating_point_error(name: str, entropy: float) -> None:
    with np.errstate(all="raise", under="ignore"):
        (temperature,) = temperatures(name, [entropy], 151_936)
    assert MIN_TEMPERATURE <= temperature <= MAX_TEMPERATURE


def random_parameters(rng: np.random.Generator) -> SamplingParameters:
    values: dict[str, float] = {}
    for name in NUMERIC:
        values[name] = float(rng.uniform(0.05, 0.9) if "min_temp" in name else rng.uniform(0.9, 1))
    return SamplingParameters.model_validate(values)


@pytest.mark.parametrize("name", sorted(STRATEGIES))
def test_each_row_obeys_its_own_parameters(name: str) -> None:
    rng = np.random.default_rng(5)
    parameters = [random_parameters(rng) for _ in range(40)]
    entropy, varentropy = rng.uniform(0.0, 4.0, 40), rng.uniform(0.0, 9.0, 40)
    running = np.where(rng.random(40) < 0.3, np.nan, rng.uniform(0.0, 4.0, 40))
    strategy = STRATEGIES[name]()
    together = strategy.temperatures(
        statistics_of(entropy.tolist(), 64, varentropy.tolist()), Rows(parameters, running)
    )
    alone = [
        strategy.temperatures(
            statistics_of([entropy[line]], 64, [varentropy[line]]),
            Rows([parameters[line]], [running[line]]),
        )[0]
        for line in range(40)
    ]
    assert together.tolist() == alone
    assert len(set(alone)) > 20


@pytest.mark.parametrize("name", sorted(STRATEGIES))
def test_strategies_are_installed_by_name(name: str) -> None:
    assert TEMPERATURE_STRATEGIES.load(name) is STRATEGIES[name]
    options = resolve_request(Settings.load(), {"qr_temperature_strategy": name})
    assert options.parameters.temperature_strategy == name


def test_only_a_strategy_that_ignores_the_statistics_says_so() -> None:
    reading = {name for name, strategy in STRATEGIES.items() if strategy.reads}
    assert reading == {"dynatemp", "edt", "edt_paper", "varentropy"}
    assert TemperatureStrategy.reads
    rows = Rows([SamplingParameters()] * 3)
    for name, strategy in STRATEGIES.items():
        first, second = (
            strategy().temperatures(statistics_of(entropy, 64, varentropy), rows).tolist()
            for entropy, varentropy in (([0.5, 1.0, 2.0], [0.1] * 3), ([1.5, 2.5, 3.5], [2.0] * 3))
        )
        assert (first == second) is (name not in reading), name


# fixed


def test_fixed_returns_the_setting_of_each_row() -> None:
    rows = Rows([SamplingParameters(fixed_temperature=value) for value in (0.3, 1.7)])
    result = FixedTemperatureStrategy().temperatures(statistics_of([0.0, 2.0], 10), rows)
    assert result.tolist() == [0.3, 1.7]


# edt

# k bits of entropy among 16 tokens are k/4 of the largest entropy.
BITS = [bits * math.log(2.0) for bits in range(5)]


@pytest.mark.parametrize(
    ("exponent", "expected"),
    [
        (0.5, [0.1, 0.4, 0.8 * math.sqrt(0.5), 0.8 * math.sqrt(0.75), 0.8]),
        (1.0, [0.1, 0.2, 0.4, 0.6, 0.8]),
        (2.0, [0.1, 0.1, 0.2, 0.45, 0.8]),
        (0.0, [0.8] * 5),
    ],
)
def test_edt_by_hand(exponent: float, expected: list[float]) -> None:
    assert temperatures("edt", BITS, 16, edt_exponent=exponent) == pytest.approx(
        expected, rel=1e-14
    )


@pytest.mark.heavy
@settings(max_examples=300)
@given(st.floats(0.0, 1.0), st.integers(2, 200_000), accepted_parameters())
def test_edt_follows_its_formula(
    share: float, vocab_size: int, parameters: SamplingParameters
) -> None:
    entropy = share * math.log(vocab_size)
    strategy = EDTTemperatureStrategy()
    (temperature,) = strategy.temperatures(statistics_of([entropy], vocab_size), Rows([parameters]))
    fraction = min(1.0, entropy / math.log(vocab_size))
    raw = parameters.edt_base_temp * fraction**parameters.edt_exponent
    expected = min(max(raw, parameters.edt_min_temp), parameters.edt_max_temp)
    assert temperature == pytest.approx(expected, rel=1e-12)


def test_edt_at_the_ends() -> None:
    assert temperatures("edt", [math.log(8)], 8, edt_base_temp=0.9) == [0.9]
    assert temperatures("edt", [0.0], 8, edt_min_temp=0.25) == [0.25]
    # An exponent of 0 switches the dependence on entropy off.
    off = {"edt_base_temp": 0.9, "edt_exponent": 0.0}
    assert temperatures("edt", [0.0, 1.0], 8, **off) == [0.9, 0.9]
    # Rounding may leave an entropy just above its largest value.
    assert temperatures("edt", [math.log(8) * (1 + 1e-15)], 8, edt_base_temp=0.9) == [0.9]
    # One token has no entropy.
    assert temperatures("edt", [0.0], 1, edt_min_temp=0.3) == [0.3]


# edt_paper


def paper_temperature(entropy: float, parameters: SamplingParameters) -> float:
    """The published formula in decimal arithmetic, clipped; N ** infinity is 0 for N < 1."""
    with localcontext() as context:
        context.prec, context.Emin = 40, -(10**15)
        base, n = Decimal(parameters.edt_paper_base_temp), Decimal(parameters.edt_paper_n)
        theta = Decimal(parameters.edt_paper_theta)
        if n == 1 or theta == 0:
            raw = base
        elif entropy == 0.0:
            raw = Decimal(0)
        else:
            exponent = theta / Decimal(entropy) * n.ln()
            raw = base * exponent.exp() if exponent > -(10**6) else Decimal(0)
        low, high = Decimal(parameters.edt_min_temp), Decimal(parameters.edt_max_temp)
        return float(min(max(raw, low), high))


@pytest.mark.heavy
@settings(max_examples=400)
@given(st.floats(0.0, 12.0), accepted_parameters())
def test_edt_paper_follows_its_formula(entropy: float, parameters: SamplingParameters) -> None:
    strategy = EDTPaperTemperatureStrategy()
    (temperature,) = strategy.temperatures(statistics_of([entropy], 200_000), Rows([parameters]))
    assert temperature == pytest.approx(paper_temperature(entropy, parameters), rel=1e-12)


def test_edt_paper_by_hand() -> None:
    """T0 = 1, N = 0.8, theta = 1: T is 0.8 to the power 1/H."""
    entropy = [0.0, 0.125, 0.25, 0.5, 1.0, 2.0]
    expected = [0.1, 0.8**8, 0.4096, 0.64, 0.8, math.sqrt(0.8)]
    assert temperatures("edt_paper", entropy, 50_000) == pytest.approx(expected, rel=1e-14)
    # The vocabulary does not matter.
    assert temperatures("edt_paper", entropy, 9) == temperatures("edt_paper", entropy, 50_000)


def test_edt_paper_at_the_ends() -> None:
    assert temperatures("edt_paper", [0.0, 5e-324, 1e-300], 9, edt_min_temp=0.25) == [0.25] * 3
    assert temperatures("edt_paper", [0.0], 1, edt_min_temp=0.3) == [0.3]
    least = temperatures("edt_paper", [0.0], 9, edt_min_temp=0.25, edt_paper_theta=5e-324)
    assert least == [0.25]
    for off in ({"edt_paper_n": 1.0}, {"edt_paper_theta": 0.0}):
        values = temperatures("edt_paper", [0.0, 0.5, 2.0], 9, edt_paper_base_temp=1.25, **off)
        assert values == [1.25] * 3
    high = temperatures("edt_paper", [1e9], 9, edt_paper_base_temp=3.0, edt_max_temp=1.5)
    assert high == [1.5]
    # Where any smaller exponent would be clipped, the result is the lowest temperature itself.
    widest = {"edt_min_temp": MIN_TEMPERATURE, "edt_max_temp": MAX_TEMPERATURE}
    coldest = temperatures("edt_paper", [1e-3], 9, edt_paper_base_temp=MAX_TEMPERATURE, **widest)
    assert coldest == [MIN_TEMPERATURE]


# dynatemp


@pytest.mark.parametrize(
    ("exponent", "expected"),
    [
        (1.0, [0.2, 0.525, 0.85, 1.175, 1.5]),
        (2.0, [0.2, 0.28125, 0.525, 0.93125, 1.5]),
        (0.5, [0.2, 0.85, 0.2 + 1.3 * math.sqrt(0.5), 0.2 + 1.3 * math.sqrt(0.75), 1.5]),
        (0.0, [1.5] * 5),
    ],
)
def test_dynatemp_by_hand(exponent: float, expected: list[float]) -> None:
    values = temperatures("dynatemp", BITS, 16, dynatemp_exponent=exponent)
    assert values == pytest.approx(expected, rel=1e-14)


def test_dynatemp_at_the_ends() -> None:
    ends = {"dynatemp_min_temp": 0.3, "dynatemp_max_temp": 1.9}
    assert temperatures("dynatemp", [0.0, math.log(7)], 7, **ends) == [0.3, 1.9]
    assert temperatures("dynatemp", [0.0], 1, **ends) == [0.3]
    equal = {"dynatemp_min_temp": 0.7, "dynatemp_max_temp": 0.7}
    assert temperatures("dynatemp", [0.0, 0.3, 1.0], 7, **equal) == [0.7] * 3


# varentropy


def test_varentropy_by_hand() -> None:
    values = temperatures(
        "varentropy",
        [2.0, 2.0, 2.0, 0.0],
        1_000,
        varentropy=[1.5, 1.5, 0.0, 0.0],
        running=[math.nan, 1.25, 2.5, math.nan],
        varentropy_base_temp=0.7,
        varentropy_entropy_weight=0.3,
        varentropy_variance_weight=-0.1,
        varentropy_drift_weight=0.4,
    )
    # 0.7 + 0.6 - 0.15, the same + 0.4 * 0.75, 0.7 + 0.6 - 0.4 * 0.5, and the base alone
    assert values == pytest.approx([1.15, 1.45, 1.1, 0.7], rel=1e-14)


@pytest.mark.heavy
@settings(max_examples=300)
@given(
    st.floats(0.0, 12.0),
    st.floats(0.0, 50.0),
    st.one_of(st.just(math.nan), st.floats(0.0, 12.0)),
    accepted_parameters(),
)
def test_varentropy_follows_its_formula(
    entropy: float, varentropy: float, running: float, parameters: SamplingParameters
) -> None:
    statistics = statistics_of([entropy], 200_000, [varentropy])
    (temperature,) = VarentropyTemperatureStrategy().temperatures(
        statistics, Rows([parameters], [running])
    )
    raw = math.fsum(
        (
            parameters.varentropy_base_temp,
            parameters.varentropy_entropy_weight * entropy,
            parameters.varentropy_variance_weight * varentropy,
            parameters.varentropy_drift_weight
            * (0.0 if math.isnan(running) else entropy - running),
        )
    )
    expected = min(max(raw, parameters.varentropy_min_temp), parameters.varentropy_max_temp)
    assert temperature == pytest.approx(expected, rel=1e-9, abs=1e-10)


def test_varentropy_without_weights_is_its_base_temperature() -> None:
    weights = {f"varentropy_{term}_weight": 0.0 for term in ("entropy", "variance", "drift")}
    values = temperatures(
        "varentropy",
        [0.0, 3.0],
        1_000,
        varentropy=[0.0, 9.0],
        running=[1.0, 1.0],
        varentropy_base_temp=0.9,
        **weights,
    )
    assert values == [0.9, 0.9]


def test_varentropy_stays_in_its_range() -> None:
    steep = {"varentropy_entropy_weight": 100.0, "varentropy_variance_weight": -100.0}
    values = temperatures("varentropy", [9.0, 0.0], 10_000, varentropy=[0.0, 9.0], **steep)
    assert values == [2.0, 0.1]


# Growth


@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        ("dynatemp", {"dynatemp_exponent": 0.7}),
        ("edt", {"edt_exponent": 0.7, "edt_min_temp": 0.2, "edt_max_temp": 0.7}),
        ("edt_paper", {"edt_paper_theta": 0.7, "edt_min_temp": 0.2, "edt_max_temp": 0.95}),
        ("varentropy", {"varentropy_entropy_weight": 0.2, "varentropy_max_temp": 1.5}),
    ],
)
def test_temperature_grows_with_entropy(name: str, parameters: dict[str, float]) -> None:
    values = np.array(
        temperatures(name, np.linspace(0.0, math.log(1_000), 500).tolist(), 1_000, **parameters)
    )
    assert (np.diff(values) >= 0.0).all()
    between = (values > values[0]) & (values < values[-1])
    assert (np.diff(values[between]) > 0.0).all()
    assert between.sum() > 100


@pytest.mark.parametrize(("weight", "sign"), [(0.3, 1.0), (-0.3, -1.0)])
@pytest.mark.parametrize("term", ["variance", "drift"])
def test_the_sign_of_a_weight_is_the_direction_of_its_term(
    term: str, weight: float, sign: float
) -> None:
    values = temperatures(
        "varentropy",
        [1.0] * 5,
        1_000,
        varentropy=[0.0, 0.5, 1.0, 1.5, 2.0] if term == "variance" else None,
        running=[1.4, 1.2, 1.0, 0.8, 0.6] if term == "drift" else None,
        **{f"varentropy_{term}_weight": weight},
    )
    assert (sign * np.diff(values) > 0.0).all()


# Third parties

THIRD_PARTY = """
    import numpy as np
    from qr_sampler import TemperatureStrategy

    class Surprised(TemperatureStrategy):
        reads = frozenset({"entropy_nats"})

        def temperatures(self, statistics, rows):
            unusual = statistics.entropy_nats > rows.running_entropy
            return np.where(unusual, 2.0, rows.column("fixed_temperature"))
"""


def test_a_strategy_of_somebody_else_sees_what_the_built_in_ones_see(install_plugin: Any) -> None:
    install_plugin(
        "surprised",
        "[qr_sampler.temperature_strategies]\nsurprised = surprised_strategy:Surprised\n",
        {"surprised_strategy": THIRD_PARTY},
    )
    deployment = Settings.load(sample_count=4, max_ks_distance=1.0)
    options = resolve_request(deployment, {"qr_temperature_strategy": "surprised"})
    pipeline = SamplingPipeline(deployment, ConstantEntropySource())
    logits = np.zeros((3, 8), np.float32)
    step = pipeline.sample(logits, Rows([options.parameters] * 3, [math.nan, 1.0, 3.0]))
    assert step is not None
    assert step.plan.temperature.temperature.tolist() == [0.7, 2.0, 0.7]
