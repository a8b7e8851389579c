# SPDX-License-Identifier: Apache-2.0
"""The protocol of a study: what it holds, and what is refused with which words."""

from __future__ import annotations

from pathlib import Path

import pytest

from qr_sampler.errors import ConfigError
from qr_sampler_lab.experiments.protocol import Protocol, parse_protocol, read_protocol
from qr_sampler_lab.experiments.protocol.files import LARGEST_PROTOCOL

TEXT = """
protocol: 1
name: device-against-control
title: A device against a control
kind: pilot
hypotheses: [The mean statistic of the device differs from that of the control.]
model: {path: models/tiny}
environment: {QR_MOCK_UNIFORM_MEAN: 127.6}
arms:
  - {name: device, source: mock_uniform, block_bytes: 1024, amplifier: bit_zscore, intention: HI}
  - {name: control, source: system, block_bytes: 1024, amplifier: bit_zscore, per_block: 2}
  - {name: idle, source: system, block_bytes: 1024, per_block: 0, options: {qr_top_p: 9e-1}}
prompts: [{file: prompts/a.txt}]
design: {blocks: 10, tokens_per_request: 20}
primary: {contrast: {device: 1, control: -1}, alpha: 0.05, smallest_effect: 0.1}
schedule: [{phase: calibration, arm: idle, at: before, requests: 3}]
"""


def changed(old: str, new: str) -> bytes:
    """Returns the protocol with a part replaced."""
    assert old in TEXT
    return TEXT.replace(old, new).encode()


def test_a_protocol_says_what_its_arms_ask_for_and_how_many_tokens_there_are() -> None:
    protocol = parse_protocol(TEXT.encode())
    assert protocol.tokens_per_arm == {"device": 200, "control": 400}
    assert protocol.block_size == 3
    assert protocol.arm("idle").request_options == {
        "qr_entropy_source": "system",
        "qr_sample_count": 1024,
        "qr_signal_amplifier_type": "zscore_mean",
        "qr_top_p": 0.9,
    }
    assert protocol.primary.compares_arms
    assert protocol.model.public_name == "tiny"
    with pytest.raises(KeyError):
        protocol.arm("nobody")


def test_tokens_are_multiplied_by_sessions_and_reduced_by_what_is_left_out() -> None:
    text = TEXT.replace(
        "design: {blocks: 10", "design: {unit: session, requests_per_session: 5, blocks: 10"
    )
    protocol = parse_protocol((text + "exclusions: {first_tokens: 4}\n").encode())
    assert protocol.tokens_per_arm == {"device": 800, "control": 1600}


def test_a_protocol_cannot_be_changed() -> None:
    protocol = parse_protocol(TEXT.encode())
    with pytest.raises(ValueError, match="frozen"):
        protocol.name = "another"


def test_what_a_protocol_holds_is_what_its_json_holds() -> None:
    protocol = parse_protocol(TEXT.encode())
    assert Protocol.model_validate_json(protocol.model_dump_json()) == protocol


REFUSED = {
    "unknown key": (TEXT + "colour: red\n", "colour: unknown key"),
    "missing key": (changed("kind: pilot", ""), "kind"),
    "key twice": (TEXT + "kind: formal\n", "'kind' is there twice"),
    "anchor": (changed("pilot", "&kind pilot"), "anchors"),
    "alias": ("a: [x]\nb: *a\n", "anchors"),
    "bomb": ("a: &a [x, x]\nb: &b [*a, *a]\nc: [*b, *b]\n", "anchors"),
    "tag": (changed("pilot", "!!str pilot"), "tags"),
    "object": (changed("pilot", "!!python/name:os.system"), "tags"),
    "depth": ("[" * 50_000, "deep"),
    "size": ("#" * (LARGEST_PROTOCOL + 1), "262,144 bytes"),
    "two documents": (TEXT + "---\na: 1\n", "single document"),
    "no mapping": ("- 1\n", "object"),
    "nothing": ("", "object"),
    "complex key": ("? [a]\n: 1\n", "keys are texts"),
    "not UTF-8": (b"name: \xff\n", "UTF-8"),
    "digits": ("protocol: " + "9" * 9_000, "digits|1"),
    "not a number": (changed("alpha: 0.05", "alpha: .nan"), "alpha='.nan'"),
    "infinite": (changed("smallest_effect: 0.1", "smallest_effect: 1e999"), "JSON"),
    "text for number": (changed("blocks: 10", "blocks: '10'"), "design.blocks='10'"),
    "yes for true": (changed("per_block: 2", "sham: yes"), "sham='yes'"),
    "version": (changed("protocol: 1", "protocol: 2"), "protocol=2"),
    "alpha": (changed("0.05", "0.7"), "alpha=0.7"),
    "unknown arm in contrast": (changed("{device: 1, ", "{nobody: 1, "), "'nobody'"),
    "scheduled arm in contrast": (changed("control: -1", "idle: -1"), "never randomised"),
    "weight of zero": (changed("control: -1", "control: 0"), "is 0"),
    "unknown arm in schedule": (changed("arm: idle", "arm: nobody"), "'nobody'"),
    "unused arm": (
        changed(
            "schedule: [{phase: calibration, arm: idle",
            "schedule: [{phase: calibration, arm: device",
        ),
        "neither",
    ),
    "two arms of a name": (changed("name: control", "name: device"), "twice"),
    "label as option": (changed("qr_top_p: 9e-1", "qr_condition: x"), "qr_condition"),
    "bypass": (changed("qr_top_p: 9e-1", "qr_bypass: 1"), "qr_bypass"),
    "source as option": (changed("qr_top_p: 9e-1", "qr_entropy_source: x"), "set source"),
    "foreign option": (changed("qr_top_p: 9e-1", "top_p: 0.9"), "begin with qr_"),
    "secret": (changed("QR_MOCK_UNIFORM_MEAN: 127.6", "QR_GRPC_API_KEY: x"), "secret"),
    "ledger": (changed("QR_MOCK_UNIFORM_MEAN: 127.6", "QR_LEDGER_DIR: x"), "follows"),
    "foreign variable": (changed("QR_MOCK_UNIFORM_MEAN", "PATH"), "PATH"),
    "prompt above": (changed("prompts/a.txt", "../a.txt"), "below"),
    "absolute prompt": (changed("prompts/a.txt", "/etc/passwd"), "below"),
    "prompt twice": (changed("[{file: prompts/a.txt}]", "[{file: a}, {file: ./a}]"), "twice"),
    "sessions of requests": (
        changed("{blocks: 10", "{requests_per_session: 2, blocks: 10"),
        "unit",
    ),
    "tau": (TEXT + "stopping: {tau: 0.1}\n", "tau"),
    "e-value without tau": (TEXT + "stopping: {rule: e_value}\n", "tau"),
    "e-value of three": (
        changed("control: -1}", "control: -2}").decode() + "stopping: {rule: e_value, tau: 0.1}\n",
        "pairs",
    ),
    "e-value of free lengths": (
        changed("{blocks: 10", "{fixed_length: false, blocks: 10").decode()
        + "stopping: {rule: e_value, tau: 0.1}\n",
        "fixed_length",
    ),
    "nothing left": (TEXT + "exclusions: {first_tokens: 20}\n", "leaves nothing"),
    "name": (changed("device-against-control", "../x"), "name="),
}


@pytest.mark.parametrize(("text", "reason"), REFUSED.values(), ids=list(REFUSED))
def test_a_bad_protocol_is_refused_with_the_reason(text: str | bytes, reason: str) -> None:
    data = text if isinstance(text, bytes) else text.encode()
    with pytest.raises(ConfigError, match=reason):
        parse_protocol(data)


def test_many_problems_are_told_but_not_all() -> None:
    with pytest.raises(ConfigError, match=r"and [0-9]+ more"):
        parse_protocol(TEXT.encode() + b"".join(b"key%d: 1\n" % n for n in range(30)))


def test_texts_stay_texts() -> None:
    protocol = parse_protocol(changed("A device against a control", "2026-11-30"))
    assert protocol.title == "2026-11-30"
    assert parse_protocol(changed("A device against a control", "no")).title == "no"
    assert parse_protocol(changed("A device against a control", "012")).title == "012"


def test_files_that_are_none_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read"):
        read_protocol(tmp_path / "PROTOCOL.yaml")
    with pytest.raises(ConfigError, match=r"regular file|cannot be read"):
        read_protocol(tmp_path)
    (tmp_path / "large").write_bytes(b"#" * (LARGEST_PROTOCOL + 1))
    with pytest.raises(ConfigError, match="shorten"):
        read_protocol(tmp_path / "large")
    (tmp_path / "PROTOCOL.yaml").write_text(TEXT)
    assert read_protocol(tmp_path / "PROTOCOL.yaml").name == "device-against-control"
