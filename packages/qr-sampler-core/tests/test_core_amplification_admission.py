# SPDX-License-Identifier: Apache-2.0
"""Which blocks are admitted, how they are refused, and how rows of several amplifiers are mixed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from qr_sampler import (
    AMPLIFIERS,
    AmplificationResult,
    Baseline,
    ConfigError,
    FallbackEntropySource,
    RandomWalkAmplifier,
    RequestOptions,
    Rows,
    SamplingParameters,
    SamplingPipeline,
    Settings,
    SignalAmplifier,
    Uniform53Amplifier,
    ZScoreMeanAmplifier,
    check_components,
    measure_baseline,
    resolve_request,
    token_record,
)
from qr_sampler.amplification.groups import amplify_groups
from qr_sampler.arrays import ByteBlocks
from qr_sampler.components.amplifiers import amplifier_named
from qr_sampler.testing import ConstantEntropySource, RecordedEntropySource

OURS = [
    "bit_zscore",
    "ecdf",
    "exact_bits",
    "exact_sum",
    "random_walk",
    "uniform53",
    "zscore_mean",
]
WITHOUT_BASELINE = [name for name in OURS if name != "ecdf"]


def test_every_amplifier_is_found_by_name() -> None:
    assert set(OURS) <= set(AMPLIFIERS.names())
    for name in WITHOUT_BASELINE:
        amplifier = amplifier_named(name, Settings.load())
        result = amplifier.amplify(np.arange(200, dtype=np.uint8).reshape(2, 100))
        assert ((result.u > 0.0) & (result.u < 1.0)).all()
        assert result.u.shape == result.statistic.shape == (2,)


@pytest.mark.parametrize("name", WITHOUT_BASELINE)
def test_the_default_block_is_fine_enough_for_every_amplifier(name: str) -> None:
    options = resolve_request(Settings.load(), {"qr_signal_amplifier_type": name})
    resolution = amplifier_named(name, Settings.load()).resolution(options.parameters.sample_count)
    assert resolution is not None
    assert resolution.ks_distance <= Settings.load().max_ks_distance


# The shortest blocks that keep a Kolmogorov distance of 0.005.
SHORTEST = [("zscore_mean", 7), ("bit_zscore", 796), ("exact_sum", 8), ("uniform53", 7)]


@pytest.mark.parametrize(("name", "size"), SHORTEST)
def test_shorter_blocks_are_refused(name: str, size: int) -> None:
    deployment = Settings.load()
    asked = {"qr_signal_amplifier_type": name, "qr_sample_count": size}
    assert resolve_request(deployment, asked).parameters.sample_count == size
    with pytest.raises(ConfigError, match=f"^qr_sample_count={size - 1}: "):
        resolve_request(deployment, {**asked, "qr_sample_count": size - 1})


def test_the_refusal_says_how_far_off_and_what_to_do() -> None:
    with pytest.raises(ConfigError) as caught:
        resolve_request(Settings.load(), {"qr_sample_count": 1})
    assert str(caught.value) == (
        "qr_sample_count=1: with zscore_mean u would be 0.0592 away from uniform (Kolmogorov "
        "distance) and the operator allows 0.005; use a longer block, another amplifier, or a "
        "larger QR_MAX_KS_DISTANCE"
    )
    generous = Settings.load(max_ks_distance=1)
    assert resolve_request(generous, {"qr_sample_count": 1}).parameters.sample_count == 1
    # The deployment's own defaults are held to the same bound.
    with pytest.raises(ConfigError, match=r"^QR_SAMPLE_COUNT=3: with zscore_mean"):
        check_components(Settings.load(sample_count=3), Settings.load(), prefix="QR_")
    check_components(Settings.load(sample_count=3), generous, prefix="QR_")


def test_a_block_too_short_to_work_at_all_is_refused_under_any_bound() -> None:
    asked = {"qr_signal_amplifier_type": "exact_bits", "qr_sample_count": 7}
    with pytest.raises(ConfigError, match=r"^qr_sample_count=7: exact_bits keeps 7 bytes"):
        resolve_request(Settings.load(max_ks_distance=1), asked)


@pytest.mark.parametrize("key", ["qr_baseline_file", "qr_max_ks_distance"])
def test_the_bound_and_the_baseline_are_the_operators(key: str) -> None:
    with pytest.raises(ConfigError, match=f"{key}=.*set by the operator"):
        resolve_request(Settings.load(), {key: "1"})


@pytest.mark.parametrize("value", ["0", "-0.1", "1.001", "nan"])
def test_bounds_out_of_range_are_refused(value: str) -> None:
    with pytest.raises(ConfigError, match="QR_MAX_KS_DISTANCE="):
        Settings.load(max_ks_distance=value)


def frozen(tmp_path: Path, blocks: int, size: int) -> tuple[Path, Baseline, bytes]:
    data = np.random.default_rng(blocks).bytes(blocks * size)
    source = RecordedEntropySource(data, name="device")
    baseline = measure_baseline(source, blocks=blocks, block_bytes=size)
    path = tmp_path / f"{blocks}.json"
    baseline.save(path)
    return path, baseline, data


def test_a_short_baseline_is_refused_with_the_remedy(tmp_path: Path) -> None:
    """200 blocks spoil a good source more than they help: 0.04 where 0.005 is allowed."""
    path, _, _ = frozen(tmp_path, 200, 64)
    deployment = Settings.load(
        baseline_file=path, entropy_source_type="device", sample_count=64, fallback_mode="error"
    )
    for name in ("zscore_mean", "ecdf"):
        with pytest.raises(ConfigError, match="use a longer block, a longer baseline, another"):
            resolve_request(deployment, {"qr_signal_amplifier_type": name})
    path, _, _ = frozen(tmp_path, 20_000, 64)
    deployment = deployment.model_copy(update={"baseline_file": path})
    resolve_request(deployment, {"qr_signal_amplifier_type": "zscore_mean"})


def test_ecdf_without_a_fitting_baseline_is_refused(tmp_path: Path) -> None:
    asked = {"qr_signal_amplifier_type": "ecdf"}
    said = "^qr_signal_amplifier_type='ecdf': ecdf ranks.*set QR_BASELINE_FILE"
    with pytest.raises(ConfigError, match=said):
        resolve_request(Settings.load(), asked)
    path, _, _ = frozen(tmp_path, 50, 64)
    deployment = Settings.load(
        baseline_file=path,
        entropy_source_type="device",
        # No other package is needed for this: what takes over would be looked at, too.
        fallback_mode="error",
        max_ks_distance=1,
        sample_count=64,
    )
    assert resolve_request(deployment, asked).parameters.signal_amplifier_type == "ecdf"
    with pytest.raises(ConfigError, match=r"^qr_sample_count=65: .*has 64 bytes per block"):
        resolve_request(deployment, {**asked, "qr_sample_count": 65})


class Silent(SignalAmplifier):
    """Says nothing about its resolution and counts nothing."""

    def amplify(self, blocks: ByteBlocks, counts: object = None) -> AmplificationResult:
        u = (blocks[:, 0] + 0.5) / 256.0
        return AmplificationResult(u=u, statistic=u)


PLUGIN = """
    from qr_sampler import AmplificationResult, SignalAmplifier

    class Silent(SignalAmplifier):
        def amplify(self, blocks, counts=None):
            u = (blocks[:, 0] + 0.5) / 256.0
            return AmplificationResult(u=u, statistic=u)

    class Confused(Silent):
        def resolution(self, block_bytes):
            raise LookupError("no table")
"""
ENTRY_POINTS = """
    [qr_sampler.signal_amplifiers]
    silent = spoken_amplifiers:Silent
    confused = spoken_amplifiers:Confused
"""


def test_amplifiers_that_say_nothing_are_admitted_and_recorded_as_unknown(
    install_plugin: Any,
) -> None:
    install_plugin("spoken", ENTRY_POINTS, {"spoken_amplifiers": PLUGIN})
    deployment = Settings.load()
    options = resolve_request(
        deployment, {"qr_signal_amplifier_type": "silent", "qr_sample_count": 1}
    )
    pipeline = SamplingPipeline(deployment, ConstantEntropySource(200))
    step = pipeline.sample(np.zeros((1, 4), np.float32), Rows([options.parameters]))
    assert step is not None
    record = token_record(step, 0, request_key="r", sequence="s", position=0, options=options)
    assert record.lattice_step is None
    assert record.baseline == ""
    assert (record.block_sum, record.block_ones) == (200, 3)
    with pytest.raises(ConfigError, match=r"^qr_sample_count=10240: LookupError: no table"):
        resolve_request(deployment, {"qr_signal_amplifier_type": "confused"})


def test_records_carry_resolution_and_bit_count() -> None:
    deployment = Settings.load()
    options = resolve_request(deployment, {"qr_sample_count": 100})
    pipeline = SamplingPipeline(deployment, ConstantEntropySource(0b10110))
    step = pipeline.sample(np.zeros((2, 4), np.float32), Rows([options.parameters] * 2))
    assert step is not None
    record = token_record(step, 1, request_key="r", sequence="s", position=0, options=options)
    resolution = ZScoreMeanAmplifier().resolution(100)
    assert record.lattice_step == resolution.lattice_step
    assert (record.block_sum, record.block_ones) == (22 * 100, 3 * 100)
    assert step.block_ones.tolist() == [300, 300]


@pytest.mark.parametrize("seed", range(5))
def test_mixed_groups_equal_their_rows_one_at_a_time(seed: int) -> None:
    rng = np.random.default_rng(seed)
    kinds: list[tuple[SignalAmplifier, int]] = [
        (ZScoreMeanAmplifier(), 8),
        (ZScoreMeanAmplifier(), 3_000),
        (RandomWalkAmplifier(), 100),
        (Uniform53Amplifier(), 7),
        (Silent(), 1),
    ]
    choice = rng.permutation(np.append(np.arange(5), rng.integers(0, 5, 20)))
    sizes = np.array([kinds[index][1] for index in choice])
    data = rng.integers(0, 256, sizes.sum(), dtype=np.uint8)
    groups = [(kinds[index][0], np.flatnonzero(choice == index)) for index in range(5)]
    together = amplify_groups(data, sizes, groups)
    end = np.cumsum(sizes)
    for line, index in enumerate(choice):
        block = data[end[line] - sizes[line] : end[line]]
        alone = amplify_groups(block, sizes[line : line + 1], [(kinds[index][0], np.arange(1))])
        one, other = together.amplification, alone.amplification
        assert one.u[line] == other.u[0]
        assert one.statistic[line] == other.statistic[0]
        assert one.baseline[line] == other.baseline[0] == ""
        np.testing.assert_equal(one.lattice_step[line], other.lattice_step[0])
        assert together.sums[line] == alone.sums[0] == sum(block.tolist())
        assert together.ones[line] == alone.ones[0] == np.unpackbits(block).sum()


def test_an_amplifier_may_state_plain_numbers() -> None:
    class Plain(Silent):
        def amplify(self, blocks: ByteBlocks, counts: object = None) -> AmplificationResult:
            step: Any = 0.25
            return super().amplify(blocks)._replace(lattice_step=step)

    sizes, data = np.full(3, 4), np.arange(12, dtype=np.uint8)
    result = amplify_groups(data, sizes, [(Plain(), np.arange(3))]).amplification
    assert result.lattice_step.tolist() == [0.25] * 3


def test_equal_blocks_are_handed_over_without_a_copy() -> None:
    seen: list[ByteBlocks] = []

    class Witness(Silent):
        def amplify(self, blocks: ByteBlocks, counts: object = None) -> AmplificationResult:
            seen.append(blocks)
            return super().amplify(blocks)

    data = np.arange(60, dtype=np.uint8)
    amplify_groups(data, np.full(4, 15), [(Witness(), np.arange(4))])
    assert np.shares_memory(seen[0], data)
    assert seen[0].tolist() == data.reshape(4, 15).tolist()


def test_a_baseline_is_named_in_the_records_of_its_device_only(tmp_path: Path) -> None:
    path, baseline, data = frozen(tmp_path, 50, 64)
    deployment = Settings.load(
        baseline_file=path, entropy_source_type="device", max_ks_distance=1, sample_count=64
    )
    names = ["zscore_mean", "exact_sum", "ecdf", "bit_zscore"]
    parameters = [SamplingParameters(signal_amplifier_type=name, sample_count=64) for name in names]
    logits = np.zeros((4, 16), np.float32)
    device = RecordedEntropySource(data, name="device")
    broken = FallbackEntropySource(
        ConstantEntropySource(name="device", fail_with="unplugged"), RecordedEntropySource(data)
    )
    for source, expected in ((device, baseline.digest), (broken, "")):
        step = SamplingPipeline(deployment, source).sample(logits, Rows(parameters))
        assert step is not None
        seen = {}
        for index, name in enumerate(names):
            options = RequestOptions(parameters=parameters[index], source="system")
            record = token_record(
                step, index, request_key="r", sequence="s", position=0, options=options
            )
            seen[name] = record.baseline
        assert seen == {**dict.fromkeys(names, expected), "exact_sum": ""}
        ideal = ZScoreMeanAmplifier().amplify(np.frombuffer(data[:64], np.uint8)[np.newaxis])
        assert bool(step.amplification.u[0] == ideal.u[0]) is (source is broken)
