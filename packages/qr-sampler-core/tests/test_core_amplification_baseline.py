# SPDX-License-Identifier: Apache-2.0
"""Frozen baselines: what is measured, how it is kept, and what it does to u."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import stats

from qr_sampler import (
    Baseline,
    BitZScoreAmplifier,
    ConfigError,
    EntropySource,
    EntropyUnavailableError,
    ExactSumAmplifier,
    FallbackEntropySource,
    Settings,
    SignalAmplifier,
    ZScoreMeanAmplifier,
    measure_baseline,
)
from qr_sampler.amplification import BaselineMeasurement, ECDFAmplifier
from qr_sampler.amplification.baseline import LATENCY_SHARES, latency_quantiles_ms
from qr_sampler.entropy import EntropyDraw
from qr_sampler.testing import ConstantEntropySource, RecordedEntropySource


class BiasedSource(EntropySource):
    """Bits that are one with a probability, each repeated several times."""

    def __init__(self, probability: float, *, repeat: int = 1, seed: int = 1) -> None:
        self.probability = probability
        self.repeat = repeat
        self._rng = np.random.default_rng(seed)

    @property
    def name(self) -> str:
        return "biased"

    def get_random_bytes(self, n: int) -> bytes:
        fresh = self._rng.random((n // self.repeat, 8)) < self.probability
        return np.packbits(fresh, axis=1).repeat(self.repeat, axis=0).tobytes()


def made(**changes: Any) -> Baseline:
    values: dict[str, Any] = {
        "source": "device",
        "source_distribution": "qr-entropy-device",
        "source_version": "1.2",
        "byte_mean": 127.0,
        "byte_std": 74.0,
        "ones_fraction": 0.498,
        "byte_correlation_factor": 0.9,
        "bit_correlation_factor": 0.8,
        "blocks": 3,
        "block_bytes": 100,
        "block_sums": (12_000, 12_700, 12_800),
        "wall_time_ns": 1_800_000_000_000_000_000,
    }
    return Baseline(**{**values, **changes})


def test_figures_are_those_of_the_definition() -> None:
    data = np.random.default_rng(3).integers(0, 256, (50, 40), dtype=np.uint8)
    seen: list[tuple[int, int]] = []
    baseline = measure_baseline(
        RecordedEntropySource(data.tobytes()),
        blocks=50,
        block_bytes=40,
        progress=lambda done, total: seen.append((done, total)),
    )
    bits = np.unpackbits(data, axis=1)
    sums, ones = data.sum(axis=1, dtype=int), bits.sum(axis=1, dtype=int)
    assert baseline.byte_mean == pytest.approx(data.mean(), rel=1e-14)
    assert baseline.byte_std == pytest.approx(data.std(), rel=1e-13)
    assert baseline.ones_fraction == pytest.approx(bits.mean(), rel=1e-14)
    assert baseline.byte_correlation_factor == pytest.approx(40 * data.var() / sums.var(ddof=1))
    assert baseline.bit_correlation_factor == pytest.approx(320 * bits.var() / ones.var(ddof=1))
    assert baseline.block_sums == tuple(sorted(sums.tolist()))
    assert (baseline.source, baseline.blocks, baseline.block_bytes) == ("recorded", 50, 40)
    assert seen == [(done, 50) for done in range(1, 51)]


def test_the_fingerprint_is_that_of_the_bytes() -> None:
    data = np.random.default_rng(4).integers(0, 256, (40, 30), dtype=np.uint8)
    fingerprint = measure_baseline(
        RecordedEntropySource(data.tobytes()), blocks=40, block_bytes=30
    ).fingerprint
    assert fingerprint is not None
    planes = np.unpackbits(data.reshape(-1, 1), axis=1).mean(axis=0)
    np.testing.assert_allclose(fingerprint.bit_planes, planes, rtol=1e-14)
    assert fingerprint.byte_histogram == tuple(np.bincount(data.ravel(), minlength=256).tolist())
    off = data.sum(axis=1, dtype=int) - data.sum(axis=1, dtype=int).mean()
    whole = np.correlate(off, off, mode="full")[39:]
    np.testing.assert_allclose(
        fingerprint.block_sum_autocorrelation, whole[1:11] / whole[0], rtol=1e-12
    )
    assert fingerprint.timed_blocks == 40
    assert list(fingerprint.latency_ms) == ["0.01", "0.05", "0.25", "0.5", "0.75", "0.95", "0.99"]


def test_latencies_are_ones_that_were_measured() -> None:
    latencies = np.random.default_rng(2).integers(0, 10**9, 357).tolist()
    expected = np.quantile(latencies, LATENCY_SHARES, method="inverted_cdf") / 1e6
    assert list(latency_quantiles_ms(latencies).values()) == expected.tolist()
    assert latency_quantiles_ms([]) == {}


class Described(BiasedSource):
    """Says much of itself."""

    conditioning = "none"

    @property
    def recorded_settings(self) -> dict[str, object]:
        return {"port": "/dev/ttyUSB0", "path": Path("/dev"), "odd": math.nan, "long": "x" * 9_999}

    def draw(self, n: int) -> EntropyDraw:
        return dataclasses.replace(super().draw(n), device_id=f"QWR{n % 7}" + "x" * 999)


def test_the_fingerprint_names_device_settings_and_conditioning(tmp_path: Path) -> None:
    path = tmp_path / "b.json"
    measure_baseline(Described(0.5), blocks=30, block_bytes=33).save(path)
    fingerprint = Baseline.load(path).fingerprint
    assert fingerprint is not None
    assert [len(each) for each in fingerprint.device_ids] == [256]
    assert fingerprint.device_ids[0].startswith("QWR5xxx")
    assert fingerprint.conditioning == "none"
    settings = fingerprint.settings
    assert (settings["port"], settings["path"], settings["odd"]) == ("/dev/ttyUSB0", "/dev", "nan")
    assert len(str(settings["long"])) == 1_024


def test_files_without_a_fingerprint_keep_their_digest(tmp_path: Path) -> None:
    content = {
        **{name: value for name, value in made().model_dump().items() if name != "fingerprint"},
        "block_sums": [12_000, 12_700, 12_800],
    }
    text = json.dumps(content, sort_keys=True, separators=(",", ":"))
    digest = hashlib.sha256(text.encode()).hexdigest()
    path = tmp_path / "old.json"
    path.write_text(json.dumps({**content, "digest": digest}), "utf-8")
    old = Baseline.load(path)
    assert old.fingerprint is None
    assert old.digest == digest


def test_a_fingerprint_of_other_bytes_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "b.json"
    measure_baseline(BiasedSource(0.5), blocks=5, block_bytes=33).save(path)
    for field, value in (
        ("bit_planes", [0.5] * 8),
        ("byte_histogram", [-1] * 256),
        ("byte_histogram", [2**70] * 256),
    ):
        content = json.loads(path.read_text("utf-8"))
        content["fingerprint"][field] = value
        path.with_name("other.json").write_text(json.dumps(content), "utf-8")
        with pytest.raises(ConfigError, match="byte_histogram"):
            Baseline.load(path.with_name("other.json"))


def test_a_baseline_is_a_file_of_limited_size(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(ConfigError, match="not a regular file"):
        Baseline.load(tmp_path / "pipe")
    path = tmp_path / "b.json"
    measure_baseline(BiasedSource(0.5), blocks=5, block_bytes=33).save(path)
    monkeypatch.setattr("qr_sampler.amplification.baseline.baseline._MOST_BYTES", 100)
    with pytest.raises(ConfigError, match="more than 100 bytes"):
        Baseline.load(path)


@pytest.mark.parametrize(("blocks", "most"), [(40_000, 4_000), (9, 0)])
def test_the_baseline_is_too_short_beyond_a_tenth_of_its_blocks(blocks: int, most: int) -> None:
    baseline = made(blocks=blocks, block_sums=())
    assert baseline.most_tokens == most
    # Up to there, the baseline adds less than 5 % to the error of the tokens alone.
    if most:
        assert baseline.mean_u_error(most) / math.sqrt(1 / (12 * most)) < 1.05


def test_a_fallback_does_not_calibrate_a_device() -> None:
    fallback = FallbackEntropySource(
        ConstantEntropySource(name="device", fail_with="unplugged"), BiasedSource(0.5)
    )
    with pytest.raises(EntropyUnavailableError, match="block 1 came from 'biased'") as caught:
        measure_baseline(fallback, blocks=5, block_bytes=8)
    assert "unplugged" in str(caught.value)
    assert caught.value.source == "device"


def test_a_device_that_fails_half_way_leaves_no_baseline() -> None:
    recording = RecordedEntropySource(bytes(range(256)))
    with pytest.raises(EntropyUnavailableError, match="recorded bytes left"):
        measure_baseline(recording, blocks=5, block_bytes=64)


@pytest.mark.parametrize(
    "data", [b"\x55" * 640, b"\x55\xaa" * 320, bytes(range(64)) * 10, b"\x00" * 640]
)
def test_a_stuck_device_is_refused(data: bytes) -> None:
    with pytest.raises(ConfigError, match=r"'recorded' all have the same sum.*stuck"):
        measure_baseline(RecordedEntropySource(data), blocks=10, block_bytes=64)


@pytest.mark.parametrize(
    ("blocks", "block_bytes", "said"),
    [(1, 8, "blocks=1"), (0, 8, "blocks=0"), (5, 0, "block_bytes=0"), (5, 2**24, "block_bytes=16")],
)
def test_sizes_out_of_range_draw_nothing(blocks: int, block_bytes: int, said: str) -> None:
    source = ConstantEntropySource()
    with pytest.raises(ConfigError, match=said):
        measure_baseline(source, blocks=blocks, block_bytes=block_bytes)
    assert source.requests == []


def test_a_file_gives_back_what_was_saved(tmp_path: Path) -> None:
    baseline = measure_baseline(BiasedSource(0.51), blocks=20, block_bytes=33)
    path = tmp_path / "baseline.json"
    baseline.save(path)
    loaded = Baseline.load(path)
    assert loaded == baseline
    assert loaded.digest == baseline.digest
    with pytest.raises(ConfigError, match=r"File exists.*choose a new file"):
        baseline.save(path)


def test_the_digest_is_that_of_the_canonical_content(tmp_path: Path) -> None:
    baseline = made()
    path = tmp_path / "baseline.json"
    baseline.save(path)
    content = json.loads(path.read_text("utf-8"))
    digest = content.pop("digest")
    text = json.dumps(content, sort_keys=True, separators=(",", ":"))
    assert digest == baseline.digest == hashlib.sha256(text.encode()).hexdigest()
    assert made(byte_mean=math.nextafter(127.0, 128.0)).digest != digest
    assert made(block_sums=()).digest != digest


DAMAGES: list[tuple[str, Any, str]] = [
    ("byte_mean", None, "byte_mean"),
    ("byte_mean", "127", "byte_mean"),
    ("byte_mean", 256.0, "byte_mean=256"),
    ("byte_mean", math.nan, "byte_mean"),
    ("byte_std", math.inf, "byte_std"),
    ("byte_std", 0.0, "byte_std=0"),
    ("ones_fraction", 1.0, "ones_fraction=1"),
    ("byte_correlation_factor", 0.0, "byte_correlation_factor=0"),
    ("bit_correlation_factor", -math.inf, "bit_correlation_factor"),
    ("blocks", 1, "blocks=1"),
    ("blocks", 4, "3 entries for blocks=4"),
    ("block_bytes", 3.5, "block_bytes=3.5"),
    ("block_sums", [3, 2, 1], "ascending"),
    ("block_sums", [1, 2, 25_501], "within 0 to 255"),
    ("block_sums", [1, 2.5, 3], "block_sums"),
    ("source", "", "source"),
    ("byte_mean", 126.0, "digest"),
    ("digest", "abc", "digest is 'abc'"),
    ("digest", ..., "digest is None"),
    ("wall_time_ns", ..., "wall_time_ns"),
    ("byte_std", ..., "byte_std"),
    ("extra", 1, "extra"),
]


@pytest.mark.parametrize(("field", "value", "said"), DAMAGES)
def test_damaged_files_are_refused(tmp_path: Path, field: str, value: Any, said: str) -> None:
    path = tmp_path / "baseline.json"
    made().save(path)
    content = json.loads(path.read_text("utf-8"))
    content[field] = value
    if value is ...:
        del content[field]
    path.write_text(json.dumps(content), "utf-8")
    with pytest.raises(ConfigError) as caught:
        Baseline.load(path)
    assert said in str(caught.value)
    assert str(caught.value).startswith(str(path))
    assert "measure the baseline again" in str(caught.value)


@pytest.mark.parametrize("text", ["", "{", "[1]", "3", "\xff", "[" * 100_000])
def test_files_that_are_no_json_object_are_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "baseline.json"
    path.write_bytes(text.encode("latin-1"))
    with pytest.raises(ConfigError, match=r"baseline\.json: (cannot be read|is not a JSON object)"):
        Baseline.load(path)
    with pytest.raises(ConfigError, match="No such file"):
        Baseline.load(tmp_path / "missing.json")
    with pytest.raises(ConfigError, match="cannot be written"):
        made().save(tmp_path / "missing" / "baseline.json")


def test_a_measurement_that_was_put_aside_has_the_figures_of_one_that_was_not(
    tmp_path: Path,
) -> None:
    kept = tmp_path / "kept.json"
    source = BiasedSource(0.51)
    measurement = BaselineMeasurement.of(source, block_bytes=33)
    for blocks in range(1, 21):
        measurement.measure_block(source)
        assert measurement.blocks == blocks
        measurement.save(kept)
        measurement = BaselineMeasurement.load(kept)
    whole = measure_baseline(BiasedSource(0.51), blocks=20, block_bytes=33)
    assert without_times(measurement.baseline()) == without_times(whole)


def without_times(baseline: Baseline) -> dict[str, Any]:
    content = baseline.model_dump(exclude={"wall_time_ns"})
    del content["fingerprint"]["latency_ms"]
    return content


def test_a_failed_block_changes_nothing() -> None:
    source = RecordedEntropySource(bytes(range(100)))
    measurement = BaselineMeasurement.of(source, block_bytes=64)
    measurement.measure_block(source)
    before = measurement.model_dump()
    with pytest.raises(EntropyUnavailableError):
        measurement.measure_block(source)
    assert measurement.model_dump() == before
    with pytest.raises(ConfigError, match="blocks=1"):
        measurement.baseline()


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("byte_counts", [0] * 256),
        ("byte_counts", [0] * 255),
        ("byte_counts", [66, -2] + [0] * 254),
        ("block_sums", [1]),
        ("block_ones", []),
        ("block_ones", [1, 2]),
        ("block_bytes", 65),
        ("source", 3),
        ("other", 1),
    ],
)
def test_damaged_measurements_are_refused(tmp_path: Path, field: str, value: Any) -> None:
    kept = tmp_path / "kept.json"
    measurement = BaselineMeasurement.of(ConstantEntropySource(1), block_bytes=64)
    measurement.measure_block(ConstantEntropySource(1))
    content = {**measurement.model_dump(), field: value}
    kept.write_text(json.dumps(content), "utf-8")
    with pytest.raises(ConfigError, match=r"kept.json: .*begins anew"):
        BaselineMeasurement.load(kept)
    for text in ("", "{", "\xff", "[" * 100_000):
        kept.write_bytes(text.encode("latin-1"))
        with pytest.raises(ConfigError, match=r"kept.json: .*begins anew"):
            BaselineMeasurement.load(kept)
    with pytest.raises(ConfigError, match="cannot be read"):
        BaselineMeasurement.load(tmp_path / "missing.json")
    with pytest.raises(ConfigError, match="cannot be written"):
        measurement.save(tmp_path / "missing" / "kept.json")


def mean_us(kind: type[SignalAmplifier], blocks: int, tokens: int, studies: int) -> np.ndarray:
    """Returns the mean of u of many studies of a perfect source, each with its own baseline."""
    rng = np.random.default_rng(20_261_130)
    size, means = 16, []
    for _ in range(studies):
        data = rng.integers(0, 256, (blocks + tokens, size), dtype=np.uint8)
        baseline = BaselineMeasurement(
            source="device",
            source_distribution="",
            source_version="",
            block_bytes=size,
            byte_counts=np.bincount(data[:blocks].ravel(), minlength=256).tolist(),
            block_sums=data[:blocks].sum(axis=1, dtype=int).tolist(),
            block_ones=np.unpackbits(data[:blocks], axis=1).sum(axis=1, dtype=int).tolist(),
        ).baseline()
        means.append(kind(baseline=baseline).amplify(data[blocks:]).u.mean())
    return np.array(means)


@pytest.mark.parametrize("kind", [ZScoreMeanAmplifier, BitZScoreAmplifier, ECDFAmplifier])
@pytest.mark.parametrize(("blocks", "tokens"), [(60, 60), (60, 240)])
def test_the_error_of_the_mean_of_u_includes_that_of_the_baseline(
    kind: type[SignalAmplifier], blocks: int, tokens: int
) -> None:
    """Rejections at the 5 % level among 1,500 studies without an effect.

    A test of the right size rejects in 75 of them, give or take 8.4; the bounds below lie more than
    6.2 standard deviations away, so a false alarm has a probability below 1e-9. Against
    1 / sqrt(12 N), as if the baseline were known, 17 % of them are rejected for N = N_b, and more
    for more tokens: the test has the power to tell the two.
    """
    studies = 1_500
    deviations = np.abs(mean_us(kind, blocks, tokens, studies) - 0.5)
    stated = made(blocks=blocks, block_sums=()).mean_u_error(tokens)
    assert stated == pytest.approx(math.sqrt((1 / tokens + 1 / blocks) / 12), rel=1e-12)
    assert 23 < np.count_nonzero(deviations > 1.96 * stated) < 127
    ratio = math.sqrt(1 + tokens / blocks)
    rejected = 2 * stats.norm.sf(1.96 / ratio)
    assert rejected > 0.165
    naive = np.count_nonzero(deviations > 1.96 / math.sqrt(12 * tokens))
    assert abs(naive - rejected * studies) < 6.2 * math.sqrt(rejected * (1 - rejected) * studies)
    assert naive > 127


def settings_with(tmp_path: Path, baseline: Baseline, **changes: Any) -> Settings:
    path = tmp_path / "baseline.json"
    baseline.save(path)
    return Settings.load(**{"baseline_file": path, "entropy_source_type": "device", **changes})


def test_amplifiers_use_the_configured_baseline(tmp_path: Path) -> None:
    settings = settings_with(tmp_path, made())
    blocks = np.random.default_rng(1).integers(0, 256, (20, 100), dtype=np.uint8)
    sums, ones = blocks.sum(axis=1, dtype=int), np.unpackbits(blocks, axis=1).sum(axis=1, dtype=int)
    result = ZScoreMeanAmplifier.from_settings(settings).amplify(blocks)
    z = (sums / 100 - 127.0) / (74.0 / math.sqrt(0.9 * 100))
    np.testing.assert_allclose(result.statistic, z, rtol=1e-11, atol=1e-12)
    np.testing.assert_allclose(result.u, stats.norm.cdf(z), rtol=1e-10)
    assert result.baseline.item() == made().digest
    result = BitZScoreAmplifier.from_settings(settings).amplify(blocks)
    z = (ones - 0.498 * 800) / math.sqrt(800 * 0.498 * 0.502 / 0.8)
    np.testing.assert_allclose(result.statistic, z, rtol=1e-11, atol=1e-12)
    assert result.baseline.item() == made().digest
    exact = ExactSumAmplifier.from_settings(settings).amplify(blocks)
    assert exact.u.tolist() == ExactSumAmplifier().amplify(blocks).u.tolist()
    assert exact.baseline.item() == ""


@pytest.mark.heavy
@pytest.mark.parametrize("kind", [ZScoreMeanAmplifier, BitZScoreAmplifier])
def test_a_baseline_makes_a_biased_correlated_device_uniform(
    kind: type[ZScoreMeanAmplifier] | type[BitZScoreAmplifier],
) -> None:
    """Bytes that come twice and lean to ones. Critical distance for a false alarm of 1e-9.

    To the sampling error of 20,000 blocks, allowed three times over, comes that of 5,000 others.
    Against the ideal law, or with mean and deviation alone, the same blocks fail.
    """
    measured = measure_baseline(BiasedSource(0.504, repeat=2), blocks=20_000, block_bytes=256)
    assert measured.byte_correlation_factor == pytest.approx(0.5, rel=0.06)
    assert measured.bit_correlation_factor == pytest.approx(0.5, rel=0.06)
    count = 5_000
    device = BiasedSource(0.504, repeat=2, seed=2)
    blocks = np.frombuffer(device.get_random_bytes(256 * count), np.uint8).reshape(count, 256)
    amplifier = kind(baseline=measured)
    resolution = amplifier.resolution(256)
    # Doubled bytes have every second sum only, so their lattice is twice as wide.
    critical = 2.0 * resolution.ks_distance + 3.0 * resolution.calibration_error
    critical += math.sqrt(math.log(2.0 / 1e-9) / (2.0 * count))
    assert critical < 0.1
    assert stats.kstest(amplifier.amplify(blocks).u, "uniform").statistic <= critical
    assert stats.kstest(kind().amplify(blocks).u, "uniform").statistic > critical
    figures = {"byte_correlation_factor": 1.0, "bit_correlation_factor": 1.0}
    naive = kind(baseline=measured.model_copy(update=figures))
    variance = naive.amplify(blocks).statistic.var()
    # A variance of 2 where 1 is right; the chi-squared law puts 1e-9 beyond 1 +- 0.13.
    assert abs(variance - 1.0) > 0.5
    assert abs(amplifier.amplify(blocks).statistic.var() - 1.0) < 0.2


def test_the_calibration_error_is_the_one_seen_in_repeated_calibrations() -> None:
    """Distances between Phi and Phi with an estimated mean and deviation, 2,000 times."""
    blocks, rng = 200, np.random.default_rng(6)
    z = np.linspace(-4.0, 4.0, 801)
    ideal = stats.norm.cdf(z)
    distances = []
    for _ in range(2_000):
        sample = rng.standard_normal(blocks)
        moved = stats.norm.cdf((z - sample.mean()) / sample.std(ddof=1))
        distances.append(np.abs(moved - ideal).max())
    stated = made(blocks=blocks, block_sums=()).calibration_error(100)
    assert stated == pytest.approx(0.57 / math.sqrt(blocks), rel=0.01)
    assert np.mean(distances) < stated < np.quantile(distances, 0.95)
    # Longer blocks feel a shift of the mean more, shorter ones less.
    assert made().calibration_error(50) < made().calibration_error(100)


def test_the_resolution_includes_the_calibration_error() -> None:
    for kind in (ZScoreMeanAmplifier, BitZScoreAmplifier):
        ideal = kind().resolution(100)
        frozen = kind(baseline=made()).resolution(100)
        assert ideal.calibration_error == 0.0
        assert frozen.calibration_error == made().calibration_error(100)
        assert frozen.ks_distance > frozen.calibration_error


def test_fallback_bytes_are_judged_by_the_ideal_law() -> None:
    amplifiers: list[SignalAmplifier] = [ZScoreMeanAmplifier(), BitZScoreAmplifier()]
    frozen = [ZScoreMeanAmplifier(baseline=made()), BitZScoreAmplifier(baseline=made())]
    block = np.random.default_rng(1).integers(0, 256, (3, 50), dtype=np.uint8)
    for ideal, device in zip(amplifiers, frozen, strict=True):
        result = device.without_baseline().amplify(block)
        assert result.u.tolist() == ideal.amplify(block).u.tolist()
        assert result.baseline.item() == ""
        assert ideal.without_baseline() is ideal


@pytest.mark.parametrize("kind", [ZScoreMeanAmplifier, BitZScoreAmplifier])
def test_a_baseline_of_another_source_is_refused(
    tmp_path: Path, kind: type[SignalAmplifier]
) -> None:
    settings = settings_with(tmp_path, made(), entropy_source_type="system")
    with pytest.raises(ConfigError, match=r"QR_BASELINE_FILE=.*'device'.*TYPE is 'system'"):
        kind.from_settings(settings)
    with pytest.raises(ConfigError, match=r"QR_BASELINE_FILE=.*nowhere.json: cannot be read"):
        kind.from_settings(Settings.load(baseline_file=tmp_path / "nowhere.json"))


@pytest.mark.parametrize("field", ["population_mean", "population_std"])
def test_a_baseline_beside_population_settings_is_refused(tmp_path: Path, field: str) -> None:
    with pytest.raises(ConfigError, match=r"QR_BASELINE_FILE=.*brings its own") as caught:
        Settings.load(baseline_file=tmp_path / "b.json", **{field: 73.6})
    assert f"QR_{field.upper()}=73.6" in str(caught.value)
