# SPDX-License-Identifier: Apache-2.0
"""Per-request options: what is accepted, what is refused, and that nothing accepted fails later."""

from __future__ import annotations

import math
import re
from dataclasses import replace
from functools import reduce
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qr_sampler import (
    ConfigError,
    EngineFields,
    RequestOptions,
    Rows,
    SamplingParameters,
    SamplingPipeline,
    Settings,
    UnknownPluginError,
    check_components,
    resolve_request,
)
from qr_sampler.admission.overrides import LABEL_KEYS, MAX_LABEL_LENGTH, SOURCE_KEY, SWITCH_KEYS
from qr_sampler.testing import ConstantEntropySource

# Any block length: that short blocks are refused is tested with the amplifiers.
DEPLOYMENT = Settings.model_construct(max_ks_distance=1.0)
OPERATOR_ONLY = sorted(
    set(Settings.model_fields) - set(SamplingParameters.model_fields) - {"follow_request"}
)


def test_nothing_asked_for_gives_the_defaults() -> None:
    for nothing in (None, {}, {"someone_elses": 3, "qrng": "x", "qr": 4, "top_k": 5}):
        options = resolve_request(DEPLOYMENT, nothing)
        assert options == RequestOptions(parameters=DEPLOYMENT.sampling, source="system")


OVERRIDES: list[tuple[str, Any, Any]] = [
    ("sample_count", 100, 100),
    ("sample_count", "100", 100),
    ("signal_amplifier_type", "zscore_mean", "zscore_mean"),
    ("temperature_strategy", "edt", "edt"),
    ("fixed_temperature", "0.25", 0.25),
    ("fixed_temperature", 1, 1.0),
    ("edt_base_temp", 1.1, 1.1),
    ("edt_exponent", 2, 2.0),
    ("edt_min_temp", 0.4, 0.4),
    ("edt_max_temp", 0.6, 0.6),
    ("edt_paper_base_temp", 1.2, 1.2),
    ("edt_paper_n", 0.7, 0.7),
    ("edt_paper_theta", "0.3", 0.3),
    ("dynatemp_min_temp", 0.4, 0.4),
    ("dynatemp_max_temp", 0.6, 0.6),
    ("dynatemp_exponent", 2, 2.0),
    ("varentropy_base_temp", 0.9, 0.9),
    ("varentropy_entropy_weight", -1, -1.0),
    ("varentropy_variance_weight", 0.25, 0.25),
    ("varentropy_drift_weight", "-0.5", -0.5),
    ("varentropy_drift_rate", 1, 1.0),
    ("varentropy_min_temp", 0.4, 0.4),
    ("varentropy_max_temp", 0.6, 0.6),
    ("top_n_sigma", "1.5", 1.5),
    ("top_k", 5.0, 5),
    ("top_k", -1, -1),
    ("min_p", 0.5, 0.5),
    ("top_p", "1e-3", 1e-3),
    ("typical_p", 0.95, 0.95),
    ("truncate_first", "true", True),
    ("truncate_first", 1, True),
]


@pytest.mark.parametrize(("field", "given_value", "expected"), OVERRIDES)
def test_every_sampling_parameter_can_be_overridden(
    field: str, given_value: Any, expected: Any
) -> None:
    options = resolve_request(DEPLOYMENT, {f"qr_{field}": given_value})
    assert options.parameters == DEPLOYMENT.sampling.model_copy(update={field: expected})


def test_the_table_of_overrides_is_complete() -> None:
    assert {field for field, _, _ in OVERRIDES} == set(SamplingParameters.model_fields)


def test_overrides_start_from_the_deployment() -> None:
    deployment = Settings.load(top_k=40, fixed_temperature=0.3)
    options = resolve_request(deployment, {"qr_top_p": 0.9})
    assert options.parameters == SamplingParameters(top_k=40, fixed_temperature=0.3, top_p=0.9)


@pytest.mark.parametrize("field", OPERATOR_ONLY)
def test_the_operators_settings_are_refused(field: str) -> None:
    with pytest.raises(ConfigError, match=rf"^qr_{field}='x'.*QR_{field.upper()}"):
        resolve_request(DEPLOYMENT, {f"qr_{field}": "x"})


@pytest.mark.parametrize("key", ["qr_", "qr_topk", "qr_TOP_K", "qr_qr_top_k", "qr_model_config"])
def test_unknown_keys_are_refused_with_the_known_ones(key: str) -> None:
    with pytest.raises(ConfigError, match=f"^{key}=7: unknown key; .*qr_top_k"):
        resolve_request(DEPLOYMENT, {key: 7})


@pytest.mark.parametrize(
    ("key", "shown_as", "meant"),
    [
        ("QR_TOP_K", "QR_TOP_K", "qr_top_k"),
        ("Qr_Top_K", "Qr_Top_K", "qr_top_k"),
        (" qr_top_k", "' qr_top_k'", "qr_top_k"),
        ("qr_top_k ", "'qr_top_k '", "qr_top_k"),
        ("qr top k", "'qr top k'", "qr_top_k"),
        ("qr-top-k", "'qr-top-k'", "qr_top_k"),
        ("\ufeffqr_top_k", r"'\\ufeffqr_top_k'", "qr_top_k"),
        ("qrTopK", "qrTopK", "qr_top_k"),
        ("qr_topk", "qr_topk", "qr_top_k"),
        ("qr_tempreature_strategy", "qr_tempreature_strategy", "qr_temperature_strategy"),
        ("qr_requestkey", "qr_requestkey", "qr_request_key"),
        ("QR_ByPass", "QR_ByPass", "qr_bypass"),
        ("qr_\ud800", r"'qr_\\ud800'", None),
        ("QR_SOMETHING", "QR_SOMETHING", None),
        ("qr_" + "x" * 10_000, "'qr_xxx", None),
    ],
)
def test_a_key_in_another_spelling_is_refused_with_a_suggestion(
    key: str, shown_as: str, meant: str | None
) -> None:
    with pytest.raises(ConfigError, match=f"^{shown_as}.*: unknown key; ") as refusal:
        resolve_request(DEPLOYMENT, {key: 7})
    message = str(refusal.value)
    assert len(message.encode()) < 2000
    if meant is None:
        assert "did you mean" not in message
    else:
        assert f"did you mean {meant}?" in message


@pytest.mark.parametrize("key", [*LABEL_KEYS, *SWITCH_KEYS, SOURCE_KEY, "qr_top_k", "qr_unknown"])
@pytest.mark.parametrize(
    "value",
    [
        pytest.param("half of a pair: \ud800", id="surrogate"),
        pytest.param(10**5000, id="5,000 digits"),
        pytest.param(-(2**63), id="64 bits"),
        pytest.param(reduce(lambda inner, _: [inner], range(100_000), []), id="nested"),
    ],
)
def test_what_nothing_can_carry_is_refused_by_name(key: str, value: Any) -> None:
    with pytest.raises(ConfigError, match=f"^{key}=") as refusal:
        resolve_request(DEPLOYMENT, {key: value}, FIELDS)
    assert str(refusal.value).encode()


def test_labels_keep_every_text_that_can_be_carried() -> None:
    for label in ("naïve 量子 🎲", "\u0000\t", 2**63 - 1, 1 - 2**63, -0.0):
        assert resolve_request(DEPLOYMENT, {"qr_trial": label}).trial == str(label)


REFUSED: list[tuple[str, Any]] = [
    ("qr_top_k", "abc"),
    ("qr_top_k", -2),
    ("qr_top_k", 2.5),
    ("qr_top_k", math.nan),
    ("qr_top_k", [3]),
    ("qr_top_k", 10**400),
    ("qr_sample_count", 0),
    ("qr_sample_count", -1),
    ("qr_sample_count", 65_537),
    ("qr_sample_count", 10**400),
    ("qr_sample_count", "1e3"),
    ("qr_fixed_temperature", 0),
    ("qr_fixed_temperature", math.nan),
    ("qr_fixed_temperature", "inf"),
    ("qr_fixed_temperature", 1e300),
    ("qr_edt_exponent", -1),
    ("qr_min_p", 1.01),
    ("qr_top_n_sigma", -0.1),
    ("qr_top_n_sigma", "inf"),
    ("qr_top_p", 0.0),
    ("qr_top_p", -math.inf),
    ("qr_top_p", [0.5, 0.6]),
    ("qr_typical_p", 0.0),
    ("qr_typical_p", 1.01),
    ("qr_typical_p", math.nan),
    ("qr_truncate_first", "maybe"),
    ("qr_truncate_first", 2),
    ("qr_temperature_strategy", "bogus"),
    ("qr_temperature_strategy", ""),
    ("qr_temperature_strategy", 3),
    ("qr_signal_amplifier_type", "louder"),
    ("qr_signal_amplifier_type", ["zscore_mean"]),
    ("qr_request_key", ""),
    ("qr_trial", ["a"]),
    ("qr_condition", True),
    ("qr_request_key", "x" * (MAX_LABEL_LENGTH + 1)),
]


@pytest.mark.parametrize(("key", "value"), REFUSED, ids=lambda value: repr(value)[:30])
def test_bad_values_are_refused_by_name(key: str, value: Any) -> None:
    with pytest.raises(ConfigError) as caught:
        resolve_request(DEPLOYMENT, {key: value})
    message = str(caught.value)
    assert message.startswith(key)
    if len(str(value)) < 30:
        assert str(value) in message


def test_a_range_turned_upside_down_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"qr_edt_min_temp=1\.9 exceeds qr_edt_max_temp=1\.0"):
        resolve_request(DEPLOYMENT, {"qr_edt_min_temp": 1.9, "qr_edt_max_temp": 1.0})


def test_an_unknown_component_is_refused_with_the_installed_ones() -> None:
    with pytest.raises(ConfigError, match="available: dynatemp, edt, edt_paper, fixed") as caught:
        resolve_request(DEPLOYMENT, {"qr_temperature_strategy": "bogus"})
    assert isinstance(caught.value.__cause__, UnknownPluginError)


def test_the_operator_bounds_the_block() -> None:
    deployment = Settings.load(sample_count=64, max_sample_count=128)
    assert resolve_request(deployment, {"qr_sample_count": 128}).parameters.sample_count == 128
    with pytest.raises(ConfigError, match=r"^qr_sample_count=129: .*at most 128.*QR_MAX_SAMPLE"):
        resolve_request(deployment, {"qr_sample_count": 129})


def test_labels_travel_as_text() -> None:
    options = resolve_request(
        DEPLOYMENT, {"qr_request_key": "a", "qr_trial": 7, "qr_condition": 0.5}
    )
    assert (options.request_key, options.trial, options.condition) == ("a", "7", "0.5")
    assert options.parameters == DEPLOYMENT.sampling
    longest = "x" * MAX_LABEL_LENGTH
    assert resolve_request(DEPLOYMENT, {"qr_trial": longest}).trial == longest


@pytest.mark.parametrize("key", ["qr_top_k", "qr_bogus", "qr_log_level", *LABEL_KEYS])
def test_integers_too_long_to_print_are_refused(key: str) -> None:
    """Python refuses to turn them into text, which must not surface as another error."""
    with pytest.raises(ConfigError, match=f"^{key}"):
        resolve_request(DEPLOYMENT, {key: 10**5_000})


def test_messages_about_long_values_stay_short() -> None:
    for key in ("qr_top_k", "qr_bogus", "qr_temperature_strategy"):
        with pytest.raises(ConfigError) as caught:
            resolve_request(DEPLOYMENT, {key: "x" * 100_000})
        assert len(str(caught.value)) < 2_000


def test_a_broken_component_is_refused_at_admission(install_plugin: Any) -> None:
    install_plugin(
        "broken-strategy",
        "[qr_sampler.temperature_strategies]\nbroken = no_such_module_anywhere:Strategy\n",
    )
    with pytest.raises(
        ConfigError, match=r"^qr_temperature_strategy='broken'.*broken-strategy 1\.0"
    ):
        resolve_request(DEPLOYMENT, {"qr_temperature_strategy": "broken"})
    accepted = resolve_request(DEPLOYMENT, {"qr_temperature_strategy": "edt"})
    assert accepted.parameters.temperature_strategy == "edt"


UNFINISHED = """
    from qr_sampler import SignalAmplifier, TemperatureStrategy

    class Strategy(TemperatureStrategy):
        pass

    class Amplifier(SignalAmplifier):
        pass
"""


@pytest.mark.parametrize("key", ["qr_temperature_strategy", "qr_signal_amplifier_type"])
def test_an_unfinished_component_is_refused_at_admission(install_plugin: Any, key: str) -> None:
    """A class that leaves abstract methods open could not be constructed in the engine step."""
    install_plugin(
        "unfinished",
        "[qr_sampler.temperature_strategies]\nunfinished = unfinished_parts:Strategy\n"
        "[qr_sampler.signal_amplifiers]\nunfinished = unfinished_parts:Amplifier\n",
        {"unfinished_parts": UNFINISHED},
    )
    with pytest.raises(ConfigError, match=f"^{key}='unfinished'.*unfinished 1.0"):
        resolve_request(DEPLOYMENT, {key: "unfinished"})


wild = st.one_of(
    st.text(max_size=8),
    st.integers(),
    st.integers(-(10**400), 10**400),
    st.floats(),
    st.lists(st.one_of(st.integers(), st.floats(), st.text(max_size=3)), max_size=3),
    st.sampled_from(["nan", "inf", "-inf", "0", "1", "true", "edt", "fixed", "1e999", " 5 ", "٣"]),
)
temperature = st.one_of(st.floats(1e-3, 1e3), st.floats(0.05, 5.0).map(str))
tame: dict[str, st.SearchStrategy[Any]] = {
    "qr_sample_count": st.integers(1, 600),
    "qr_signal_amplifier_type": st.sampled_from(["zscore_mean", "bit_zscore", "random_walk"]),
    "qr_temperature_strategy": st.sampled_from(
        ["dynatemp", "edt", "edt_paper", "fixed", "varentropy"]
    ),
    "qr_fixed_temperature": temperature,
    "qr_edt_base_temp": temperature,
    "qr_edt_exponent": st.floats(0.0, 100.0),
    "qr_edt_min_temp": temperature,
    "qr_edt_max_temp": temperature,
    "qr_edt_paper_base_temp": temperature,
    "qr_edt_paper_n": st.floats(0.0, 1.0, exclude_min=True),
    "qr_edt_paper_theta": st.floats(0.0, 100.0),
    "qr_dynatemp_min_temp": temperature,
    "qr_dynatemp_max_temp": temperature,
    "qr_dynatemp_exponent": st.floats(0.0, 100.0),
    "qr_varentropy_base_temp": temperature,
    "qr_varentropy_entropy_weight": st.floats(-100.0, 100.0),
    "qr_varentropy_variance_weight": st.floats(-100.0, 100.0),
    "qr_varentropy_drift_weight": st.floats(-100.0, 100.0),
    "qr_varentropy_drift_rate": st.floats(0.0, 1.0, exclude_min=True),
    "qr_varentropy_min_temp": temperature,
    "qr_varentropy_max_temp": temperature,
    "qr_top_k": st.one_of(st.integers(-1, 40), st.integers(0, 2**31 - 1)),
    "qr_min_p": st.floats(0.0, 1.0),
    "qr_top_p": st.floats(0.0, 1.0, exclude_min=True),
    "qr_truncate_first": st.one_of(st.booleans(), st.integers(0, 1)),
    "qr_request_key": st.text(max_size=5),
    "qr_trial": st.one_of(st.integers(-(2**63) + 1, 2**63 - 1), st.floats(), st.text(max_size=3)),
    "qr_condition": st.text(max_size=5),
}
sensible_requests = st.fixed_dictionaries({}, optional=tame)
wild_keys = st.one_of(
    st.sampled_from([*tame, *(f"qr_{field}" for field in OPERATOR_ONLY)]),
    st.text(max_size=6),
    st.text(max_size=6).map("qr_".__add__),
)
hostile_requests = st.one_of(
    st.dictionaries(st.sampled_from(sorted(tame)), wild, max_size=4),
    st.dictionaries(wild_keys, wild, max_size=3),
    st.builds(
        lambda sensible, key, value: {**sensible, key: value}, sensible_requests, wild_keys, wild
    ),
)
SNAPSHOT = DEPLOYMENT.model_dump()


def logits_for(seed: int) -> np.ndarray[tuple[int, int], np.dtype[np.float32]]:
    rng = np.random.default_rng(seed)
    logits = rng.normal(0.0, 10.0 ** rng.uniform(-2.0, 4.0), (4, 16)).astype(np.float32)
    logits[1, rng.random(16) < 0.9] = -np.inf
    logits[3] = rng.choice([-np.inf, np.inf, np.nan])
    return logits


def check_that_it_works(extra_args: dict[str, Any], seed: int) -> bool:
    """Returns whether the request was accepted, after sampling with it."""
    try:
        options = resolve_request(DEPLOYMENT, extra_args)
    except ConfigError:
        return False
    finally:
        assert DEPLOYMENT.model_dump() == SNAPSHOT
    pipeline = SamplingPipeline(DEPLOYMENT, ConstantEntropySource(seed % 256))
    logits = logits_for(seed)
    result = pipeline.sample(logits, Rows([options.parameters] * 4))
    assert result is not None
    assert np.isfinite(logits[result.plan.lines, result.selection.token_ids]).all()
    assert ((result.selection.probability > 0.0) & (result.selection.probability <= 1.0)).all()
    return True


@settings(max_examples=200)
@given(hostile_requests, st.integers(0, 2**32 - 1))
def test_any_request_is_either_refused_or_works(extra_args: dict[str, Any], seed: int) -> None:
    check_that_it_works(extra_args, seed)


@pytest.mark.heavy
@settings(max_examples=2_000)
@given(hostile_requests, st.integers(0, 2**32 - 1))
def test_any_of_many_requests_is_either_refused_or_works(
    extra_args: dict[str, Any], seed: int
) -> None:
    check_that_it_works(extra_args, seed)


def is_upside_down(extra_args: dict[str, Any], strategy: str) -> bool:
    low, high = (
        float(extra_args.get(f"qr_{field}", getattr(DEPLOYMENT, field)))
        for field in (f"{strategy}_min_temp", f"{strategy}_max_temp")
    )
    return low > high


@settings(max_examples=100)
@given(sensible_requests, st.integers(0, 2**32 - 1))
def test_sensible_requests_work(extra_args: dict[str, Any], seed: int) -> None:
    check_that_it_works_if_sensible(extra_args, seed)


@pytest.mark.heavy
@settings(max_examples=1_000)
@given(sensible_requests, st.integers(0, 2**32 - 1))
def test_many_sensible_requests_work(extra_args: dict[str, Any], seed: int) -> None:
    check_that_it_works_if_sensible(extra_args, seed)


def check_that_it_works_if_sensible(extra_args: dict[str, Any], seed: int) -> None:
    reasons_to_refuse = (
        "" in (extra_args.get("qr_request_key"), extra_args.get("qr_trial")),
        extra_args.get("qr_condition") == "",
        is_upside_down(extra_args, "edt"),
        is_upside_down(extra_args, "dynatemp"),
        is_upside_down(extra_args, "varentropy"),
    )
    assert check_that_it_works(extra_args, seed) is not any(reasons_to_refuse)


def test_strategies_named_by_a_request_are_used() -> None:
    options = resolve_request(
        DEPLOYMENT, {"qr_temperature_strategy": "edt", "qr_edt_min_temp": 0.5}
    )
    pipeline = SamplingPipeline(DEPLOYMENT, ConstantEntropySource())
    result = pipeline.sample(np.array([[0.0, -np.inf]], np.float32), Rows([options.parameters]))
    assert result is not None
    assert result.plan.temperature.temperature.tolist() == [0.5]


MOODY = """
    from qr_sampler import SignalAmplifier, TemperatureStrategy

    class Amplifier(SignalAmplifier):
        def __init__(self):
            raise OSError("calibration file missing")

        def amplify(self, blocks, counts=None):
            raise AssertionError("never reached")

    class Strategy(TemperatureStrategy):
        def __init__(self):
            raise LookupError("no table")

        def temperatures(self, statistics, rows):
            raise AssertionError("never reached")
"""
MOODY_ENTRY_POINTS = """
    [qr_sampler.signal_amplifiers]
    moody = moody:Amplifier
    [qr_sampler.temperature_strategies]
    moody = moody:Strategy
"""


@pytest.mark.parametrize(
    ("field", "said"),
    [
        ("signal_amplifier_type", "OSError: calibration file missing"),
        ("temperature_strategy", "LookupError: no table"),
    ],
)
def test_components_that_cannot_be_constructed_are_refused_at_admission(
    install_plugin: Any, field: str, said: str
) -> None:
    install_plugin("moody", MOODY_ENTRY_POINTS, {"moody": MOODY})
    with pytest.raises(ConfigError, match=f"qr_{field}='moody': {said}"):
        resolve_request(DEPLOYMENT, {f"qr_{field}": "moody"})
    defaults = SamplingParameters(**{field: "moody"})
    with pytest.raises(ConfigError, match=f"QR_{field.upper()}='moody': {said}"):
        check_components(defaults, DEPLOYMENT, prefix="QR_")


def test_keys_that_are_not_text_belong_to_somebody_else() -> None:
    assert resolve_request(DEPLOYMENT, {3: "x"}).parameters == DEPLOYMENT.sampling


COUNTED = """
    from qr_sampler import SignalAmplifier

    constructed = []

    class Amplifier(SignalAmplifier):
        def __init__(self):
            constructed.append(self)

        def amplify(self, blocks, counts=None):
            raise AssertionError("never reached")
"""


def test_a_costly_amplifier_is_constructed_once_for_all_requests(install_plugin: Any) -> None:
    entry_points = """
        [qr_sampler.signal_amplifiers]
        counted = counted_amplifier:Amplifier
    """
    install_plugin("counted", entry_points, {"counted_amplifier": COUNTED})
    for _ in range(5):
        resolve_request(DEPLOYMENT, {"qr_signal_amplifier_type": "counted"})
    import counted_amplifier  # type: ignore[import-not-found]

    assert len(counted_amplifier.constructed) == 1


FIELDS = EngineFields(temperature=0.4, top_p=0.9, top_k=30, min_p=0.05)


class TestFollowing:
    """A ``qr_*`` key comes before an ordinary field, and that before the deployment's setting."""

    def test_the_ordinary_fields_are_taken_when_asked_for(self) -> None:
        options = resolve_request(DEPLOYMENT, {"qr_follow_request": 1}, FIELDS)
        assert options.parameters == DEPLOYMENT.sampling.model_copy(
            update={"fixed_temperature": 0.4, "top_p": 0.9, "top_k": 30, "min_p": 0.05}
        )
        assert not options.left_to_engine

    def test_they_are_ignored_otherwise(self) -> None:
        for asked in (None, {"qr_follow_request": 0}):
            assert resolve_request(DEPLOYMENT, asked, FIELDS).parameters == DEPLOYMENT.sampling

    def test_the_deployment_can_ask_for_it_and_the_request_can_say_no(self) -> None:
        follows = DEPLOYMENT.model_copy(update={"follow_request": True})
        assert resolve_request(follows, None, FIELDS).parameters.top_k == 30
        said_no = resolve_request(follows, {"qr_follow_request": "false"}, FIELDS)
        assert said_no.parameters == DEPLOYMENT.sampling

    @pytest.mark.parametrize(
        ("key", "value"),
        [("top_p", 0.5), ("top_k", 7), ("min_p", 0.2), ("fixed_temperature", 1.5)],
    )
    def test_own_keys_come_first(self, key: str, value: Any) -> None:
        asked = {"qr_follow_request": 1, f"qr_{key}": value}
        followed = {"fixed_temperature": 0.4, "top_p": 0.9, "top_k": 30, "min_p": 0.05}
        options = resolve_request(DEPLOYMENT, asked, FIELDS)
        assert options.parameters == DEPLOYMENT.sampling.model_copy(update={**followed, key: value})

    def test_the_deployments_strategy_gives_way_but_the_requests_does_not(self) -> None:
        adaptive = DEPLOYMENT.model_copy(update={"temperature_strategy": "edt"})
        followed = resolve_request(adaptive, {"qr_follow_request": 1}, FIELDS)
        assert followed.parameters.temperature_strategy == "fixed"
        asked = {"qr_follow_request": 1, "qr_temperature_strategy": "edt"}
        own = resolve_request(DEPLOYMENT, asked, FIELDS)
        assert own.parameters.temperature_strategy == "edt"
        assert own.parameters.top_k == 30

    def test_temperature_zero_is_greedy(self) -> None:
        greedy = replace(FIELDS, temperature=0.0)
        assert resolve_request(DEPLOYMENT, {"qr_follow_request": 1}, greedy).left_to_engine
        assert not resolve_request(DEPLOYMENT, None, greedy).left_to_engine
        own = {"qr_follow_request": 1, "qr_fixed_temperature": 0.8}
        assert not resolve_request(DEPLOYMENT, own, greedy).left_to_engine

    @pytest.mark.parametrize(
        ("change", "named"),
        [
            ({"temperature": 1e9}, "temperature=1000000000.0"),
            ({"top_p": 0.0}, "top_p=0.0"),
            ({"min_p": 2.0}, "min_p=2.0"),
            ({"top_k": 2**40}, "top_k=1099511627776"),
        ],
    )
    def test_a_followed_value_out_of_range_is_named_as_the_client_wrote_it(
        self, change: dict[str, Any], named: str
    ) -> None:
        with pytest.raises(ConfigError, match=f"^{re.escape(named)}: .*qr_follow_request"):
            resolve_request(DEPLOYMENT, {"qr_follow_request": 1}, replace(FIELDS, **change))

    @pytest.mark.parametrize("value", [math.nan, math.inf, -0.5, 1e-9, None, "warm"])
    def test_a_followed_temperature_has_to_be_one(self, value: Any) -> None:
        fields = replace(FIELDS, temperature=value)
        with pytest.raises(ConfigError, match=r"^temperature=.*qr_follow_request=0"):
            resolve_request(DEPLOYMENT, {"qr_follow_request": 1}, fields)

    def test_there_has_to_be_something_to_follow(self) -> None:
        with pytest.raises(ConfigError, match="qr_follow_request"):
            resolve_request(DEPLOYMENT, {"qr_follow_request": 1})

    @pytest.mark.parametrize("field", ["top_p", "top_k", "min_p"])
    def test_ordinary_fields_of_what_the_engine_samples_are_not_judged(self, field: str) -> None:
        strange = replace(FIELDS, **{field: -7})
        follows = DEPLOYMENT.model_copy(update={"follow_request": True})
        assert resolve_request(follows, {"qr_bypass": 1}, strange).left_to_engine
        assert resolve_request(follows, None, replace(strange, temperature=0.0)).left_to_engine
        with pytest.raises(ConfigError, match=f"^{field}=-7"):
            resolve_request(follows, None, strange)


@pytest.mark.parametrize("value", [True, 1, "1", "true", "True", "TRUE"])
def test_a_request_can_be_left_to_the_engine(value: Any) -> None:
    assert resolve_request(DEPLOYMENT, {"qr_bypass": value}).left_to_engine


@pytest.mark.parametrize("value", [False, 0, "0", "false", "FALSE"])
def test_a_switch_can_be_off(value: Any) -> None:
    assert not resolve_request(DEPLOYMENT, {"qr_bypass": value}).left_to_engine


@pytest.mark.parametrize(
    "value", [2, -1, 1.0, "yes", "", None, [1], b"1", pytest.param(10**5000, id="huge")]
)
def test_a_switch_is_on_or_off(value: Any) -> None:
    for key in ("qr_bypass", "qr_follow_request"):
        with pytest.raises(ConfigError, match=f"^{key}=.*0 or 1"):
            resolve_request(DEPLOYMENT, {key: value}, FIELDS)


def test_what_is_left_to_the_engine_is_checked_all_the_same() -> None:
    with pytest.raises(ConfigError, match="qr_top_k='x'"):
        resolve_request(DEPLOYMENT, {"qr_bypass": 1, "qr_top_k": "x"})


class TestSources:
    DECLARED = DEPLOYMENT.model_copy(update={"request_entropy_sources": "left, right,,system"})

    def test_the_configured_source_is_the_default(self) -> None:
        assert resolve_request(self.DECLARED, None).source == "system"

    def test_a_declared_source_can_be_chosen(self, install_plugin: Any) -> None:
        module = """
            from qr_sampler.testing import ConstantEntropySource

            class Source(ConstantEntropySource):
                @classmethod
                def from_environment(cls):
                    return cls(name=cls.__name__.lower())

            class Left(Source): ...
            class Right(Source): ...
        """
        points = "[qr_sampler.entropy_sources]\nleft = sides:Left\nright = sides:Right\n"
        install_plugin("sides", points, {"sides": module})
        assert self.DECLARED.selectable_sources == ("system", "left", "right")
        for name in self.DECLARED.selectable_sources:
            assert resolve_request(self.DECLARED, {"qr_entropy_source": name}).source == name

    @pytest.mark.parametrize("value", ["elsewhere", "", 1, None, ["left"], "left, right"])
    def test_no_other_can(self, value: Any) -> None:
        with pytest.raises(ConfigError, match=r"^qr_entropy_source=.*system, left, right"):
            resolve_request(self.DECLARED, {"qr_entropy_source": value})


JSON_LIKE = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.integers(min_value=10**18)
    | st.floats(allow_nan=True, allow_infinity=True)
    | st.text(max_size=12)
    | st.sampled_from(["1", "true", "system", "fixed", "edt", "zscore_mean", "uniform53"])
    | st.binary(max_size=4),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=4,
)
KEYS = st.sampled_from(
    [
        *(f"qr_{field}" for field in SamplingParameters.model_fields),
        *LABEL_KEYS,
        *SWITCH_KEYS,
        SOURCE_KEY,
        "qr_nonsense",
        "other",
        3,
    ]
)


@given(
    extra=st.dictionaries(KEYS, JSON_LIKE, max_size=6),
    fields=st.builds(
        EngineFields,
        temperature=st.floats(0, 3) | st.floats(),
        top_p=st.floats(0, 1) | st.floats(),
        top_k=st.integers(-1, 2**33) | st.integers(),
        min_p=st.floats(0, 1) | st.floats(),
    ),
    follows=st.booleans(),
)
def test_every_value_is_accepted_or_refused_in_one_way(
    extra: dict[Any, Any], fields: EngineFields, follows: bool
) -> None:
    """And what is accepted is what the step will see: it does not change when resolved again."""
    deployment = DEPLOYMENT.model_copy(update={"follow_request": follows})
    before = repr(extra)
    try:
        options = resolve_request(deployment, extra, fields)
    except ConfigError:
        return
    assert repr(extra) == before
    assert resolve_request(deployment, extra, fields) == options
    assert options.source in deployment.selectable_sources
    assert SamplingParameters.model_validate(options.parameters.model_dump()) == options.parameters
