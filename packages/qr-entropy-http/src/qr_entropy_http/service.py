# SPDX-License-Identifier: Apache-2.0
"""One service as it is going to be asked: its preset, completed by the settings."""

from __future__ import annotations

import functools
import hashlib
import json
import math
import ssl
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

import httpx

from qr_entropy_http.credentials import key_in
from qr_entropy_http.presets import Preset, load_preset, preset_names, read_preset
from qr_entropy_http.presets.template import filled, filled_value
from qr_entropy_http.quota.quota import WINDOWS, Allowance
from qr_entropy_http.settings import HttpOptions, parameters_in
from qr_entropy_http.url import checked_url, is_loopback
from qr_sampler.entropy import SourceLimits
from qr_sampler.errors import ConfigError
from qr_sampler.foreign import plain_text

__all__ = ["Service", "service_of"]

UNITS: Final = ("requests", "bytes")


@dataclass(frozen=True, slots=True)
class Service:
    """What a request needs; its key shows in no representation."""

    preset: Preset
    url: str
    """Scheme, host and port, and a path before the preset's if there is one."""
    values: Mapping[str, str]
    """What fills the preset's parameters."""
    key: str
    """The API key; empty for none. :meth:`__repr__` hides it."""
    bytes_per_request: int
    """Size of the largest request: whole numbers."""
    allowances: tuple[Allowance, ...]
    """The quotas."""
    tls: ssl.SSLContext
    """What is trusted."""

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.preset.name!r}, {self.url!r})"

    @property
    def limits(self) -> SourceLimits:
        """What the source accepts, in the terms of all sources.

        What is allowed in a longer window is the most that a shorter one can hold.
        """
        return SourceLimits(
            max_bytes_per_request=self.bytes_per_request,
            max_requests_per_minute=self._most("requests", "minute"),
            max_bytes_per_day=self._most("bytes", "day"),
        )

    def _most(self, unit: str, window: str) -> int | None:
        window_s = WINDOWS[window]
        return min(
            (
                math.ceil(window_s / min(window_s, WINDOWS[allowance.window])) * allowance.limit
                for allowance in self.allowances
                if allowance.unit == unit
            ),
            default=None,
        )

    @property
    def secrets(self) -> tuple[str, ...]:
        """The key as the service may repeat it: plainly, in JSON, or in a URL."""
        in_json = json.dumps(self.key)[1:-1]
        forms = (self.key, in_json, in_json.replace("/", "\\/"), quote(self.key, safe=""))
        return tuple(dict.fromkeys(filter(None, forms)))

    def told(self, words: str) -> str:
        """Returns *words* as a reason that says where it comes from, without secrets."""
        return plain_text(f"{self.preset.title} at {self.url}: {words}", self.secrets)

    @property
    def account(self) -> str:
        """A short digest that tells accounts of services apart, for the name of a file."""
        text = "\n".join(("qr-entropy-http account", self.url, self.key))
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    def sizes(self, n: int) -> list[int]:
        """Returns how many bytes each request of a draw asks for: *n* in whole numbers."""
        number = self.preset.answer.bytes_per_number
        whole = -(-n // number) * number
        largest = self.bytes_per_request
        return [min(largest, whole - start) for start in range(0, whole, largest)]

    def request(self, payload_bytes: int) -> httpx.Request:
        """Returns the request for *payload_bytes* bytes, which are whole numbers."""
        preset = self.preset
        values: dict[str, object] = {
            **self.values,
            "numbers": payload_bytes // preset.answer.bytes_per_number,
            "bytes": payload_bytes,
            "bits": 8 * payload_bytes,
        }
        in_path = {name: quote(str(value), safe="") for name, value in values.items()}
        query = {name: filled(text, values) for name, text in preset.query.items()}
        content: dict[str, Any] = {}
        if preset.body is not None:
            content["json"] = {
                name: filled_value(value, values) for name, value in preset.body.items()
            }
        return httpx.Request(
            preset.method,
            self.url + filled(preset.path, in_path),
            params=query or None,
            headers=self._headers(values),
            **content,
        )

    def renewed(self, options: HttpOptions) -> Service:
        """Returns the same service with the key that the file has now.

        Raises:
            ConfigError: When it has none.
        """
        return replace(self, key=_key(options, self.preset))

    def _headers(self, values: Mapping[str, object]) -> dict[str, str]:
        headers = {"user-agent": "qr-entropy-http"}
        # In lower case, so that none is sent twice.
        for name, text in self.preset.headers.items():
            headers[name.lower()] = filled(text, values)
        rule = self.preset.key
        if rule is not None and self.key:
            headers[rule.header.lower()] = rule.prefix + self.key
        return headers


def service_of(options: HttpOptions) -> Service:
    """Returns the service that *options* choose.

    Raises:
        ConfigError: When none is chosen, or something is missing, unknown or unsafe.
    """
    preset = _preset(options)
    service = Service(
        preset=preset,
        url=_url(options, preset),
        values=_values(options, preset),
        key=_key(options, preset),
        bytes_per_request=_largest(options, preset),
        allowances=_allowances(options, preset),
        tls=_tls(options.ca_file),
    )
    try:
        service.request(service.bytes_per_request)
    except (httpx.InvalidURL, ValueError) as error:
        raise ConfigError(f"the preset {preset.name} makes no valid request: {error}") from error
    return service


def _preset(options: HttpOptions) -> Preset:
    if options.preset and options.preset_file is not None:
        raise ConfigError(
            "QR_HTTP_PRESET and QR_HTTP_PRESET_FILE both choose a service; set only one of them"
        )
    if options.preset_file is not None:
        return read_preset(options.preset_file)
    if not options.preset:
        raise ConfigError(
            f"no service is chosen; set QR_HTTP_PRESET to one of {', '.join(preset_names())}, or "
            "describe one of your own in a file and name it in QR_HTTP_PRESET_FILE"
        )
    return load_preset(options.preset)


def _url(options: HttpOptions, preset: Preset) -> str:
    try:
        url = checked_url(options.url) if options.url else preset.url
    # Not by the options themselves, whose errors quote what they were given.
    except ValueError as error:
        raise ConfigError(f"QR_HTTP_URL: {error}") from None
    if not url:
        raise ConfigError(
            f"{preset.title} is a device of your own; say where it is in QR_HTTP_URL, such as "
            "https://qrng.example:443"
        )
    encrypted = url.lower().startswith("https:")
    if not (encrypted or is_loopback(url) or options.allow_plain_http):
        raise ConfigError(
            f"{url} is not encrypted and leads to another machine; use https://, or set "
            "QR_HTTP_ALLOW_PLAIN_HTTP=true on a network that you trust"
        )
    return url


def _values(options: HttpOptions, preset: Preset) -> dict[str, str]:
    given = parameters_in(options.parameters)
    unknown = sorted(set(given) - set(preset.parameters))
    if unknown:
        known = ", ".join(preset.parameters) or "none"
        raise ConfigError(
            f"QR_HTTP_PARAMETERS sets {', '.join(unknown)}; the preset {preset.name} has {known}"
        )
    values = {**preset.parameters, **given}
    missing = [name for name, value in values.items() if not value]
    if missing:
        raise ConfigError(
            f"the preset {preset.name} leaves {', '.join(missing)} open; set "
            f"QR_HTTP_PARAMETERS={missing[0]}=..."
        )
    return values


def _key(options: HttpOptions, preset: Preset) -> str:
    if preset.key is None:
        if options.key_file is not None:
            raise ConfigError(f"QR_HTTP_KEY_FILE is set, but {preset.title} takes no key; unset it")
        return ""
    if options.key_file is not None:
        return key_in(options.key_file)
    if preset.key.required:
        raise ConfigError(
            f"{preset.title} asks for an API key; write it into a file that only you can read, and "
            "name that in QR_HTTP_KEY_FILE"
        )
    return ""


def _largest(options: HttpOptions, preset: Preset) -> int:
    number = preset.answer.bytes_per_number
    largest = min(preset.bytes_per_request, options.max_bytes_per_request or 2**24)
    if largest < number:
        raise ConfigError(
            f"QR_HTTP_MAX_BYTES_PER_REQUEST={largest} is less than one number of the preset "
            f"{preset.name}, which has {number} bytes; raise it"
        )
    return largest // number * number


def _allowances(options: HttpOptions, preset: Preset) -> tuple[Allowance, ...]:
    found = []
    for unit in UNITS:
        for window in WINDOWS:
            name = f"{unit}_per_{window}"
            own = getattr(options, f"max_{name}", None)
            limit = own if own is not None else getattr(preset.limits, name, None)
            if limit is not None:
                found.append(Allowance(unit, window, limit))
    return tuple(found)


@functools.cache
def _public_tls() -> ssl.SSLContext:
    # Without the variables by which others may add to what is trusted.
    return httpx.create_ssl_context(trust_env=False)


def _tls(ca_file: Path | None) -> ssl.SSLContext:
    if ca_file is None:
        return _public_tls()
    try:
        return ssl.create_default_context(cafile=str(ca_file))
    except ssl.SSLError as error:
        raise ConfigError(f"{ca_file} holds no certificates in PEM form") from error
    except OSError as error:
        raise ConfigError(f"cannot read the certificates {ca_file}: {error.strerror}") from error
