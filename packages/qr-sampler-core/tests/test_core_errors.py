# SPDX-License-Identifier: Apache-2.0
"""Errors: their family, their words, and their way through a pickle."""

from __future__ import annotations

import copy
import inspect
import pickle
from functools import reduce

import pytest

from qr_sampler import errors
from qr_sampler.errors import (
    ComponentError,
    ConfigError,
    EntropyUnavailableError,
    PluginConflictError,
    PluginError,
    PluginLoadError,
    QRSamplerError,
    UnknownPluginError,
    shown,
)

EXAMPLES = [
    QRSamplerError("something"),
    ConfigError("QR_TOP_K='abc': not a number"),
    EntropyUnavailableError("device", "unplugged"),
    EntropyUnavailableError("device", "half an answer", dropped_bytes=7),
    PluginError("unusable"),
    UnknownPluginError("entropy source", "qrng", ("system", "timing_noise")),
    UnknownPluginError("entropy source", "qrng", ()),
    PluginConflictError("entropy source", "qrng", ("a 1.0", "b 2.0")),
    PluginLoadError("entropy source", "qrng", "a 1.0", "ImportError: no driver"),
    EntropyUnavailableError("device", "quota", retry_after_s=2.5),
    ComponentError("signal amplifier", "loud", "u holds NaN"),
]


def test_every_error_has_an_example() -> None:
    classes = {value for _, value in inspect.getmembers(errors, inspect.isclass)}
    assert classes == {type(example) for example in EXAMPLES}


@pytest.mark.parametrize("error", EXAMPLES, ids=lambda error: type(error).__name__)
@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_errors_survive_pickling(error: QRSamplerError, protocol: int) -> None:
    restored = pickle.loads(pickle.dumps(error, protocol))
    assert type(restored) is type(error)
    assert str(restored) == str(error)
    assert vars(restored) == vars(error)
    assert str(copy.deepcopy(error)) == str(error)


@pytest.mark.parametrize("error", EXAMPLES, ids=lambda error: type(error).__name__)
def test_errors_share_one_root(error: QRSamplerError) -> None:
    assert isinstance(error, QRSamplerError)


@pytest.mark.parametrize(
    ("error", "builtin"),
    [
        (ConfigError, ValueError),
        (EntropyUnavailableError, RuntimeError),
        (UnknownPluginError, ValueError),
        (PluginConflictError, ValueError),
        (PluginLoadError, ImportError),
    ],
)
def test_errors_are_the_builtins_that_a_caller_expects(
    error: type[Exception], builtin: type[Exception]
) -> None:
    assert issubclass(error, builtin)


def test_messages_say_what_happened_and_what_to_do() -> None:
    messages = [str(example) for example in EXAMPLES]
    assert messages[2] == "entropy source 'device' is unavailable: unplugged"
    assert messages[5] == "unknown entropy source 'qrng'; available: system, timing_noise"
    assert messages[6].endswith("available: none; install a package that provides one")
    assert messages[7].endswith("is claimed by a 1.0 and b 2.0; uninstall all but one of them")
    assert "from a 1.0 cannot be loaded: ImportError: no driver; repair" in messages[8]


def test_shown_values_are_short_and_never_fail() -> None:
    assert shown("a'b") == repr("a'b")
    assert shown([1, "x"]) == "[1, 'x']"
    assert len(shown("x" * 10_000)) < 200
    nested = reduce(lambda inner, _: [inner], range(100_000), [])
    for unprintable in (10**5_000, [10**5_000], -(10**5_000), nested):
        assert "too long to print" in shown(unprintable)
