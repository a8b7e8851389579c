# SPDX-License-Identifier: Apache-2.0
"""Presets are data: those that are shipped, and a user's own, checked key by key."""

from __future__ import annotations

import os
import re
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from qr_entropy_http.presets import load_preset, preset_digest, preset_names, read_preset
from qr_entropy_http.settings import HttpOptions
from qr_entropy_http.simulators import Simulator
from qr_entropy_http.source import HttpSource
from qr_sampler import ConfigError
from qr_sampler.entropy import JitClass
from qr_sampler.health import assumed_min_entropy

OWN = """
name = "bench"
title = "The generator on the bench"
url = "https://bench.example"
path = "/draw/{bytes}"
headers = { accept = "application/json" }

[answer]
numbers = "values[]"
form = "uint8"

[limits]
numbers_per_request = 256
requests_per_second = 2
"""


BENCH = "https://bench.example"


def own(tmp_path: Path, text: str = OWN) -> Path:
    path = tmp_path / "bench.toml"
    path.write_text(text, "utf-8")
    return path


def refusal(tmp_path: Path, old: str, new: str) -> str:
    assert OWN.count(old) == 1
    with pytest.raises(ConfigError) as caught:
        read_preset(own(tmp_path, OWN.replace(old, new)))
    assert str(tmp_path / "bench.toml") in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("name", preset_names())
def test_shipped_presets_are_encrypted_and_bounded(name: str) -> None:
    preset = load_preset(name)
    assert preset.name == name
    assert preset.url == "" or preset.url.startswith("https://")
    assert preset.documentation.startswith("https://")
    assert preset.bytes_per_request <= 65_536


def test_a_pool_is_called_one(key_file: Path) -> None:
    """By its operator's word; class C says what is known of the others."""
    pooled = [name for name in preset_names() if load_preset(name).pooled]
    assert pooled == ["quandela"]
    source = HttpSource("quandela", key_file=key_file)
    assert source.recorded_settings["pooled"] is True
    assert source.jit_class is JitClass.REMOTE
    other = HttpSource("lfd")
    assert other.recorded_settings["pooled"] is False
    # What health tests assume of bytes does not depend on their age.
    assert source.conditioning == other.conditioning == "unknown"
    assert assumed_min_entropy(source.conditioning) < 8.0


def test_the_setting_names_every_preset() -> None:
    description = HttpOptions.model_fields["preset"].description or ""
    assert (
        tuple(re.findall(r"\w+", description.split(":")[1].replace(" or ", " "))) == preset_names()
    )


def test_every_preset_is_in_the_table_of_devices() -> None:
    assert [note.device for note in HttpSource.device_notes] == [
        load_preset(name).title for name in preset_names()
    ]
    assert HttpSource.native_block_bytes is None


def test_a_preset_of_ones_own_is_asked(tmp_path: Path) -> None:
    source = HttpSource(preset_file=own(tmp_path))
    request = source._service.request(16)
    assert str(request.url) == "https://bench.example/draw/16"
    assert request.headers["accept"] == "application/json"
    assert source.recorded_settings["preset_name"] == "bench"
    assert source.recorded_settings["preset_sha256"] == preset_digest(read_preset(own(tmp_path)))
    assert source.limits.max_bytes_per_request == 256


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ('form = "uint8"', 'form = "octal"', "answer.form = 'octal'"),
        ('form = "uint8"', 'forms = "uint8"', "answer.forms"),
        ('form = "uint8"', 'form = "raw"', "format 'raw' goes with form 'raw'"),
        ('form = "uint8"', 'form = "uint8"\nbytes_per_number = 2', "needs bytes_per_number = 1"),
        ('numbers = "values[]"', 'numbers = "values[0]"', "answer.numbers = 'values[0]'"),
        ('numbers = "values[]"', "numbers = 3", "answer.numbers = 3"),
        ("numbers_per_request = 256", "", "limits.numbers_per_request: Field required"),
        ("numbers_per_request = 256", "numbers_per_request = 0", "greater than or equal to 1"),
        ("numbers_per_request = 256", 'numbers_per_request = "9"', "valid integer"),
        ("numbers_per_request = 256", "numbers_per_request = 99999999", "16777216 bytes at most"),
        ("requests_per_second = 2", "requests_per_hour = 2", "limits.requests_per_hour"),
        ('path = "/draw/{bytes}"', 'path = "/draw"', "does not say how much"),
        ('path = "/draw/{bytes}"', 'path = "/draw/{number}"', "nothing fills the places"),
        ('path = "/draw/{bytes}"', 'path = "/draw/{bytes"', "brace"),
        ('path = "/draw/{bytes}"', 'path = "/draw/{bytes.real}"', "brace"),
        ('path = "/draw/{bytes}"', 'path = "draw/{bytes}"', "path = 'draw/{bytes}'"),
        ('name = "bench"', 'name = "Bench"', "name = 'Bench'"),
        ('name = "bench"', 'name = "lfd"', "that of a preset which comes with"),
        ('name = "bench"', 'name = "bench"\nbody = { n = "{bytes}" }', "only method 'POST'"),
        ('name = "bench"', 'name = "bench"\nparameters = { bytes = "" }', "no free names"),
        ('name = "bench"', 'name = "bench"\nparameters = { unit = "" }', "have no place"),
        ('name = "bench"', 'name = "bench"\nwhen = 2026-01-01', "when"),
        ('{ accept = "application/json" }', '{ host = "elsewhere" }', "no header that a preset"),
        ('{ accept = "application/json" }', '{ "a b" = "x" }', "no header that a preset"),
        ('{ accept = "application/json" }', '{ a = "x\\r\\ny: z" }', "characters that none"),
        ('{ accept = "application/json" }', '{ Upgrade = "h2c" }', "no header that a preset"),
        (BENCH, "file:///etc/passwd", "url: 'file:///etc/passwd' is not of the form"),
        (BENCH, "https://[::1", "url: 'https://[::1' is not of the form"),
        (BENCH, "https://bench.example:99999", "out of range"),
        (BENCH, "https://xn--:1", "no valid host"),
        ('name = "bench"', 'name = "bench"\nkey = { header = "Host" }', "no header that a preset"),
        (
            'name = "bench"',
            'name = "bench"\nkey = { header = "a", prefix = "\\r\\nb:" }',
            "none can",
        ),
        ('name = "bench"', 'name = "bench"\nkey = { header = "a", prefix = "\u00e9" }', "none can"),
        ('name = "bench"', 'name = "bench"\nparameters = { a = "x\\r\\ny: z" }', "printable ASCII"),
        ('name = "bench"', "name = ", "no TOML"),
    ],
)
def test_mistakes_are_named(tmp_path: Path, old: str, new: str, words: str) -> None:
    assert words in refusal(tmp_path, old, new)


def test_a_request_that_cannot_be_sent_is_no_surprise_in_a_draw(tmp_path: Path) -> None:
    text = OWN.replace("headers = {", 'query = { a = "' + "\u00e9" * 12_000 + '" }\nheaders = {')
    with pytest.raises(ConfigError, match=r"bench makes no valid request: URL .* too long"):
        HttpSource(preset_file=own(tmp_path, text))


def test_an_answer_fits_into_memory(tmp_path: Path) -> None:
    text = OWN.replace('form = "uint8"', 'form = "uint8"\ncharacters_per_byte = 4096')
    assert read_preset(own(tmp_path, text.replace(" = 256", " = 32768"))).limits
    with pytest.raises(ConfigError, match="134217728 characters at most"):
        read_preset(own(tmp_path, text.replace(" = 256", " = 32769")))


def test_a_password_in_a_url_is_in_no_error(tmp_path: Path) -> None:
    url = "https://user:s3cret@bench.example"
    for make in (
        lambda: read_preset(own(tmp_path, OWN.replace(BENCH, url))),
        lambda: HttpSource("lfd", url=url),
    ):
        with pytest.raises(ConfigError, match="no place for a password") as caught:
            make()
        trace = traceback.format_exception(ConfigError, caught.value, caught.value.__traceback__)
        assert "s3cret" not in "".join(trace)


def test_headers_are_sent_once(tmp_path: Path, key_file: Path) -> None:
    text = OWN.replace("{ accept =", '{ Authorization = "x", User-Agent = "bench", accept =')
    text = text.replace('name = "bench"', 'name = "bench"\nkey = { header = "authorization" }')
    source = HttpSource(preset_file=own(tmp_path, text), key_file=key_file)
    names = [name.decode().lower() for name, _ in source._service.request(1).headers.raw]
    assert sorted(names) == ["accept", "authorization", "host", "user-agent"]


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda path: None, "No such file"),
        (lambda path: path.mkdir(), "no regular file"),
        (getattr(os, "mkfifo", Path.mkdir), "no regular file"),
        (lambda path: path.write_bytes(b"\xff"), "not UTF-8"),
        (lambda path: path.write_bytes(b"#" * 70_000), "more than 65536 bytes"),
        (lambda path: path.write_text("a = " + "[" * 20_000), "no TOML|nested too deeply"),
        (lambda path: path.write_text("a = " + "9" * 10_000), "no TOML|a: Extra inputs"),
    ],
)
def test_files_that_are_no_presets(
    make: Callable[[Path], object], words: str, tmp_path: Path
) -> None:
    path = tmp_path / "preset.toml"
    make(path)
    with pytest.raises(ConfigError, match=words):
        read_preset(path)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({}, "no service is chosen; set QR_HTTP_PRESET to one of anu, "),
        ({"preset": "anu2"}, "no preset is called 'anu2'; choose one of anu, "),
        ({"preset": "lfd", "preset_file": "x"}, "set only one of them"),
        ({"preset": "anu"}, "asks for an API key"),
        ({"preset": "lfd", "key_file": "x"}, "takes no key"),
        ({"preset": "anu", "key_file": "missing"}, "cannot read the API key"),
        ({"preset": "quantis_appliance"}, "say where it is in QR_HTTP_URL"),
        ({"preset": "quanttp", "url": "https://a"}, "leaves device_id open"),
        ({"preset": "lfd", "parameters": "a=b"}, "the preset lfd has none"),
        ({"preset": "lfd", "parameters": "a"}, "not of the form name=value"),
        ({"preset": "lfd", "parameters": "a=b,a=c"}, "set twice"),
        ({"preset": "lfd", "url": "http://lfdr.de"}, "not encrypted"),
        ({"preset": "lfd", "url": "http://localhost.evil.example"}, "not encrypted"),
        ({"preset": "lfd", "url": "http://127.0.0.1.evil.example"}, "not encrypted"),
        ({"preset": "lfd", "url": "HTTP://lfdr.de"}, "not encrypted"),
        ({"preset": "lfd", "url": "http://[::ffff:192.0.2.1]"}, "not encrypted"),
        ({"preset": "lfd", "url": "http://[::1]lfdr.de"}, "https://host:port"),
        ({"preset": "lfd", "url": "http://127.0.0.1\\.lfdr.de"}, "https://host:port"),
        ({"preset": "lfd", "url": "https://xn--"}, "no valid host"),
        ({"preset": "lfd", "url": "ftp://lfdr.de"}, "https://host:port"),
        ({"preset": "lfd", "url": "lfdr.de"}, "https://host:port"),
        ({"preset": "lfd", "url": "https://"}, "https://host:port"),
        ({"preset": "lfd", "url": "https://a:b@lfdr.de"}, "no place for a password"),
        ({"preset": "lfd", "url": "https://lfdr.de?x=1"}, "https://host:port"),
        ({"preset": "lfd", "url": "https://lfdr.de:99999"}, "out of range"),
        ({"preset": "lfd", "url": "https://lfdr.de:0"}, "port 0"),
        ({"preset": "lfd", "ca_file": "missing"}, "cannot read the certificates"),
        ({"preset": "lfd", "timeout_ms": 0}, "greater than 0"),
        ({"preset": "lfd", "api_key": "secret"}, "Extra inputs"),
    ],
)
def test_settings_that_do_not_fit_are_refused(options: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        HttpSource(**options)


@pytest.mark.parametrize(
    "content", [b"", b" \n", b"two words", b"one\ntwo", b"\xff\xfe", b"k" * 5000, "ké".encode()]
)
def test_files_without_a_key_are_refused_unquoted(content: bytes, key_file: Path) -> None:
    key_file.write_bytes(content)
    with pytest.raises(ConfigError, match="holds no API key") as caught:
        HttpSource("anu", key_file=key_file)
    assert "two" not in str(caught.value)
    assert caught.value.__cause__ is None
    assert caught.value.__context__ is None


def test_a_pipe_is_no_key_and_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", tmp_path):
        with pytest.raises(ConfigError, match=r"no regular file|Is a directory"):
            HttpSource("anu", key_file=path)


def test_a_file_of_certificates_holds_some(key_file: Path) -> None:
    with pytest.raises(ConfigError, match="holds no certificates"):
        HttpSource("lfd", ca_file=key_file)


def test_a_request_is_never_smaller_than_a_number(key_file: Path) -> None:
    source = HttpSource("anu", key_file=key_file, max_bytes_per_request=50)
    assert source.limits.max_bytes_per_request == 40
    with pytest.raises(ConfigError, match="less than one number"):
        HttpSource("anu", key_file=key_file, max_bytes_per_request=19)


def test_another_machine_without_encryption_is_a_choice() -> None:
    source = HttpSource("lfd", url="http://lab.example:8000/", allow_plain_http=True)
    assert source._service.url == "http://lab.example:8000"


def test_variables_make_a_source(
    serve: Callable[..., Simulator], key_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    simulator = serve("outshift")
    for name, value in {
        "PRESET": "outshift",
        "URL": simulator.url,
        "KEY_FILE": key_file,
        "MAX_BYTES_PER_DAY": 100,
    }.items():
        monkeypatch.setenv(f"QR_HTTP_{name}", str(value))
    source = HttpSource.from_environment()
    assert len(source.draw(60).data) == 60
    question = simulator.questions[0]
    assert question.method == "POST"
    assert question.headers["x-id-api-key"] == key_file.read_text().strip()
    assert question.headers["accept-encoding"] == "identity"
    assert source.limits.max_bytes_per_day == 100


def test_several_services_have_names_of_their_own(
    serve: Callable[..., Simulator], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from qr_sampler import create_source

    one, other = serve("lfd"), serve("qrandom")
    file = tmp_path / "sources.toml"
    file.write_text(
        f"[left]\nkind = 'http'\npreset = 'lfd'\nurl = '{one.url}'\n"
        f"[right]\nkind = 'http'\npreset = 'qrandom'\nurl = '{other.url}'\n"
    )
    monkeypatch.setenv("QR_SOURCES_FILE", str(file))
    left, right = create_source("left"), create_source("right")
    assert (left.draw(8).source, right.draw(8).source) == ("left", "right")
    assert (one.requests, other.requests) == (1, 1)
    one.fault = "503"
    assert left.probe().reason
    assert right.probe().available
