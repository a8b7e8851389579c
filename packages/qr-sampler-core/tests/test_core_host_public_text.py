# SPDX-License-Identifier: Apache-2.0
"""What anybody may read holds ordinary words only."""

from __future__ import annotations

import pytest

from qr_sampler.host.public_text import public_model_name, public_text


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("no answer within 250 ms", "no answer within 250 ms"),
        ("by 127.0.0.1:59987 (UNKNOWN: ipv4:127.0.0.1:1: refused);", "by … (UNKNOWN: …: refused);"),
        ("cannot open /dev/qrng0: No such file", "cannot open …: No such file"),
        ("unix:///run/qrng.sock", "…"),
        (r"C:\\keys\\a.pem is unreadable", "… is unreadable"),
        ("Bearer eyJhbGciOi.J9_x and https://u:p@host/x?k=v", "Bearer … and …"),
        ("fe80::1 refused, qrng.example.org too", "… refused, … too"),
        ("correct QR_GRPC_SERVER_ADDRESS", "correct QR_GRPC_SERVER_ADDRESS"),
        ("", ""),
        ("12345678901234567890", "…"),
    ],
)
def test_reasons_show_ordinary_words_only(text: str, shown: str) -> None:
    assert public_text(text) == shown


def test_a_reason_of_any_length_is_shown_in_part() -> None:
    assert len(public_text("word " * 10_000)) < 400


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("/srv/models/tiny", "tiny"),
        ("./tiny", "tiny"),
        ("models/of/ours/tiny", "tiny"),
        ("s3://bucket/tiny", "tiny"),
        ("Qwen/Qwen3-0.6B", "Qwen/Qwen3-0.6B"),
        ("tiny", "tiny"),
    ],
)
def test_a_model_is_not_shown_with_its_directory(name: str, shown: str) -> None:
    assert public_model_name(name) == shown
