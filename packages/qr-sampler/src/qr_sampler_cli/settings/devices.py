# SPDX-License-Identifier: Apache-2.0
"""The page of devices, made from what the installed sources say of those that they read."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final, NamedTuple

from qr_sampler import ENTROPY_SOURCES
from qr_sampler.entropy.device_notes import BLOCK_SIZES, DeviceNote
from qr_sampler.errors import PluginError
from qr_sampler.foreign import plain_text
from qr_sampler.settings_reference import markdown_table

__all__ = ["NotedDevice", "devices_page", "noted_devices"]

_INTRODUCTION: Final = """\
# Devices

What can decide tokens, how long that takes, and who says so.
`qr-sampler sources --table` makes this page from the code, for the packages that are installed.

- **source**: the value of `QR_ENTROPY_SOURCE_TYPE`, and its package.
- **ms per token**: from the request to the last byte of one block of 64, 1,024 and 10,240 bytes
  (`QR_SAMPLE_COUNT`).
  Where the basis is the vendor, that is the block divided by the vendor's rate, and the system
  comes on top.
- **class**: how far the claim reaches that the bytes were measured after the request.
  A: the device attests it; B: what waited was flushed and read here; C: a remote side says so; D:
  a public beacon; P: pseudo-random, a control; U: nothing bounds their age.
- **made at a time**: the bytes that the device makes at once; multiples of them waste nothing.
- **basis**: where the figures come from.
  No vendor's device was at hand here: their figures are the vendors' words."""

_NAMED: Final = """\
## Several sources of one kind

Two generators of one kind get names of their own, separated by commas:

```dotenv
QR_SOURCES=left=device_file:/dev/ttyUSB0,right=device_file:/dev/ttyUSB1
QR_ENTROPY_SOURCE_TYPE=left
QR_REQUEST_ENTROPY_SOURCES=right
QR_FALLBACK_MODE=end_request
```

What follows the colon is the place of the device: the path of `device_file`, the port of `serial`
and `cryptalabs`, the address of `quantum_grpc` and `direct`, the preset of `http`.
Everything else of a kind can differ, too, in a TOML file that `QR_SOURCES_FILE` names.
It has a table for each name, with the settings of its kind in lower case and without their prefix:

```toml
[left]
kind = "device_file"
path = "/dev/ttyUSB0"
flush_bytes = 512

[control]
kind = "prng"
seed = 7
stream = 1
```

What is declared of a name comes before the variables of its kind, which hold for all others of the
kind.
Settings of the deployment, such as `QR_CB_*`, hold for all sources.
A name can be given wherever a source is named: in these settings, in `qr_entropy_source` of a
request, and to `qr-sampler sources`, `quality`, `baseline`, `health run` and `serve-entropy`.
Each has its own circuit breaker, limits and place in records, metrics and `/qr/status`; the first
line of a ledger says of which `kind` it is.
Two names for one device share the lock of the device, so that no byte serves twice.

The file is read once, when the process first needs a source; it may have at most 256 KiB and 64
names.
Keys belong into files of their own, which settings such as `api_key_file` name.
A name is made of lower-case letters, digits and underscores, and is not that of a kind."""

_HEADER: Final = (
    "device",
    "source",
    "how it is reached",
    "bytes/s",
    "ms per token",
    "class",
    "conditioning",
    "made at a time",
    "basis",
)


class NotedDevice(NamedTuple):
    """What a source says of a device that it reads."""

    source: str
    """Name of the source."""
    distribution: str
    """The distribution that brings it."""
    block_bytes: int | None
    """The bytes that the device makes at a time."""
    note: DeviceNote
    """What is known of the device."""


def noted_devices() -> Iterator[NotedDevice | PluginError]:
    """Yields every device of the installed sources, and the error of each that cannot be loaded."""
    for name in ENTROPY_SOURCES.names():
        try:
            kind, plugin = ENTROPY_SOURCES.load(name), ENTROPY_SOURCES.find(name)
        except PluginError as error:
            yield error
            continue
        for note in kind.device_notes:
            if isinstance(note, DeviceNote):
                distribution = plugin.origin.distribution
                yield NotedDevice(name, distribution, kind.native_block_bytes, note)


def devices_page(devices: list[NotedDevice]) -> str:
    """Returns the page of *devices* in Markdown, without a line break at its end."""
    table = markdown_table(_HEADER, [_row(device) for device in devices])
    return f"{_INTRODUCTION}\n\n{table}\n\n{_NAMED}"


def _row(device: NotedDevice) -> tuple[str, ...]:
    note = device.note
    times = [_number(note.ms_per_token.get(size)) for size in BLOCK_SIZES]
    return (
        _cell(note.device),
        f"`{_cell(device.source)}` of {_cell(device.distribution) or 'an unknown package'}",
        _cell(note.reached_by),
        _number(note.rate_bytes_per_s),
        " / ".join(times) if note.ms_per_token else "unknown",
        note.jit_class.value,
        _cell(note.conditioning),
        "-" if device.block_bytes is None else _number(device.block_bytes),
        _cell(note.basis),
    )


def _number(value: float | None) -> str:
    """Returns a number with three significant digits.

    >>> [_number(value) for value in (None, 12_500.0, 0.0014629, 3_906, 256.4)]
    ['unknown', '12,500', '0.00146', '3,910', '256']
    """
    if value is None:
        return "unknown"
    rounded = float(f"{value:.3g}")
    return f"{int(rounded):,}" if rounded.is_integer() else f"{rounded:,.10f}".rstrip("0")


def _cell(text: str) -> str:
    return plain_text(text).replace("|", "\\|")
