# SPDX-License-Identifier: Apache-2.0
"""Logits of every library: what is read where it lies, what is converted, what stays as it is."""

from __future__ import annotations

import logging
import math
from typing import Any

import numpy as np
import pytest

from qr_sampler.host import StepRows
from qr_sampler_local import LocalSampler, force_tokens
from qr_sampler_local.loop import access, arrays
from qr_sampler_local.loop.arrays import readable

SHAPE = (3, 40)


@pytest.fixture
def torch() -> Any:
    return pytest.importorskip("torch", reason="needs torch")


@pytest.fixture
def mx() -> Any:
    return pytest.importorskip("mlx.core", reason="needs MLX")


def made_up(dtype: Any = np.float32) -> Any:
    return np.random.default_rng(4).normal(size=SHAPE).astype(dtype)


def test_float32_is_read_where_it_lies() -> None:
    logits = made_up()
    assert readable(logits) is logits


@pytest.mark.parametrize("dtype", [np.float16, np.float64, ">f4"])
def test_other_numbers_are_converted(dtype: Any) -> None:
    logits = made_up(dtype)
    found = readable(logits)
    assert found.dtype == np.dtype("=f4")
    assert np.array_equal(found, logits.astype(np.float32))


def test_what_is_beyond_float32_is_infinite() -> None:
    found = readable(np.array([[-1e300, 0.0, 1e300]]))
    assert found.tolist() == [[-math.inf, 0.0, math.inf]]


def test_lists_are_welcome() -> None:
    assert np.array_equal(readable([[0.5, 1.5]]), np.array([[0.5, 1.5]], np.float32))


def test_float32_of_torch_is_read_where_it_lies(torch: Any) -> None:
    logits = torch.from_numpy(made_up()).requires_grad_()
    assert np.shares_memory(readable(logits), logits.detach().numpy())


@pytest.mark.parametrize("name", ["float16", "bfloat16", "float64"])
def test_other_numbers_of_torch_are_converted(torch: Any, name: str) -> None:
    logits = torch.from_numpy(made_up()).to(getattr(torch, name))
    assert np.array_equal(readable(logits), logits.to(torch.float32).numpy())


def test_whole_numbers_of_torch_are_refused(torch: Any) -> None:
    with pytest.raises(TypeError, match=r"torch\.int64: expected floating-point"):
        readable(torch.zeros(SHAPE, dtype=torch.int64))
    with pytest.raises(ValueError, match=r"shape \(40,\)"):
        readable(torch.zeros(40))


def test_accelerators_without_a_selector_are_copied_and_said_so_once(
    torch: Any, caplog: pytest.LogCaptureFixture
) -> None:
    class OnMps(torch.Tensor):  # type: ignore[misc]
        device = torch.device("mps")

    arrays._tell_of_copies.cache_clear()
    logits = torch.from_numpy(made_up()).as_subclass(OnMps)
    with caplog.at_level(logging.INFO, "qr_sampler.local"):
        for _ in range(3):
            assert np.array_equal(readable(logits), made_up())
    assert [record.getMessage() for record in caplog.records] == [
        "logits on mps are copied to the host to select tokens"
    ]


def test_tensors_of_an_accelerator_are_selected_by_its_package(
    torch: Any, loop: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The way of CUDA, with a tensor of the host in the place of one on a device."""
    pytest.importorskip("qr_sampler_accel", reason="needs the fast selectors")
    logits = torch.from_numpy(loop.logits(3))
    sequences = [loop.sequence(end_tokens=[]) for _ in range(3)]
    cores: list[Any] = [sequence.core for sequence in sequences]
    reader = access.ReadLogits()
    monkeypatch.setattr(loop.sampler.session, "_access", reader)
    outcomes = loop.sampler.session.decide(logits, StepRows([0, 1, 2], cores, [0, 0, 0]))
    before = logits.clone()
    assert torch.equal(logits, before)
    with LocalSampler("made up", loop.settings, sources=[type(loop.source)()]) as other:
        rows = [other.sequence() for _ in range(3)]
        assert [outcome.token_id for outcome in outcomes] == other.step(logits.numpy(), rows)


def test_the_memory_of_the_host_does_not_follow_that_of_an_accelerator(loop: Any) -> None:
    with loop.sampler as sampler:
        sampler._on_host = False
        with pytest.raises(ValueError, match="after others on an accelerator"):
            loop.step(loop.sequence())


def test_float32_of_mlx_is_evaluated_and_read_where_it_lies(mx: Any) -> None:
    logits = mx.array(made_up()) * 2.0
    found = readable(logits)
    assert np.array_equal(found, made_up() * 2)
    assert np.shares_memory(found, np.asarray(logits))


@pytest.mark.parametrize("name", ["float16", "bfloat16"])
def test_other_numbers_of_mlx_are_converted(mx: Any, name: str) -> None:
    logits = mx.array(made_up()).astype(getattr(mx, name))
    assert np.array_equal(readable(logits), np.asarray(logits.astype(mx.float32)))


def test_whole_numbers_of_mlx_are_refused(mx: Any) -> None:
    with pytest.raises(TypeError, match=r"int32: expected floating-point"):
        readable(mx.zeros(SHAPE, dtype=mx.int32))


def test_a_step_leaves_logits_as_they_are(loop: Any) -> None:
    logits = loop.logits(3)
    before = logits.copy()
    with loop.sampler as sampler:
        sampler.step(logits, [loop.sequence() for _ in range(3)])
    assert np.array_equal(logits, before)


def test_logits_that_nobody_may_write_to(loop: Any) -> None:
    logits = loop.logits(2)
    logits.flags.writeable = False
    with loop.sampler as sampler:
        assert len(sampler.step(logits, [loop.sequence(), loop.sequence()])) == 2


def expected_of(tokens: list[int]) -> Any:
    expected = made_up()
    for line, token in enumerate(tokens):
        if token >= 0:
            expected[line] = -math.inf
            expected[line, token] = 0.0
    return expected


TOKENS = [7, -1, 39]


def test_forced_rows_hold_one_token(torch: Any) -> None:
    for logits in (made_up(), torch.from_numpy(made_up())):
        assert force_tokens(logits, TOKENS) is logits
        assert np.array_equal(np.asarray(logits), expected_of(TOKENS))


def test_forced_rows_of_numpy_hold_one_token() -> None:
    logits = made_up()
    assert force_tokens(logits, TOKENS) is logits
    assert np.array_equal(logits, expected_of(TOKENS))


@pytest.mark.parametrize("name", ["float32", "bfloat16"])
def test_forced_rows_of_mlx_are_a_new_array(mx: Any, name: str) -> None:
    logits = mx.array(made_up()).astype(getattr(mx, name))
    found = force_tokens(logits, TOKENS)
    assert found.dtype == logits.dtype
    assert mx.argmax(found, axis=1).tolist()[::2] == TOKENS[::2]
    assert mx.array_equal(found[1], logits[1])
    assert np.asarray(found.astype(mx.float32)).max(axis=1)[::2].tolist() == [0.0, 0.0]
    assert int((found == -math.inf).sum()) == 2 * (SHAPE[1] - 1)


def test_forced_rows_on_a_device_hold_one_token(torch: Any) -> None:
    """The way of CUDA on whatever device there is."""
    logits = torch.from_numpy(made_up())
    if torch.cuda.is_available():
        logits = logits.to("cuda")
    else:
        pytest.skip("needs a CUDA device")
    assert np.array_equal(force_tokens(logits, TOKENS).cpu().numpy(), expected_of(TOKENS))
