# SPDX-License-Identifier: Apache-2.0
"""Prompts beside a ledger: every sequence's ids once, and in the ledger their keyed digests."""

from __future__ import annotations

import json
import shutil
import stat
import struct
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qr_sampler import Settings
from qr_sampler.host import EngineFacts, SamplingSession
from qr_sampler.host.session import waiting_prompts
from qr_sampler.records.files import ledgers_in
from qr_sampler.records.sidecars import PROMPTS_SUFFIX, prompt_digest
from qr_sampler.testing import ConstantEntropySource
from qr_sampler.testing.chain_checks import check_files
from qr_sampler.testing.toy_host import ToyHost, play_script


def host_in(folder: Path, seed: int = 0, **changes: Any) -> ToyHost:
    loaded = Settings.load(
        ledger_dir=folder, ledger_prompts=True, sample_count=4, max_ks_distance=1.0, **changes
    )
    source = ConstantEntropySource()
    sources = {source.name: source}
    loaded = loaded.model_copy(update={"entropy_source_type": source.name})
    return ToyHost(
        SamplingSession(EngineFacts(engine="toy", model="none"), loaded, sources=sources), seed=seed
    )


class Written:
    """What is in a folder with a ledger and its sidecars."""

    def __init__(self, folder: Path) -> None:
        self.ledgers = sorted(ledgers_in(folder), key=lambda path: ("_" in path.name, path.name))
        self.lines = check_files(self.ledgers)
        self.sidecars = sorted(folder.glob(f"*{PROMPTS_SUFFIX}"))
        beside = [
            json.loads(line) for path in self.sidecars for line in path.read_bytes().splitlines()
        ]
        self.salts = [line for line in beside if line["kind"] == "salt"]
        self.prompts = [line for line in beside if line["kind"] == "prompt"]
        self.digests = {
            line["sequence"]: line["prompt_digest"]
            for line in self.lines
            if line["kind"] == "sequence"
        }

    @property
    def salt(self) -> bytes:
        (salt,) = {line["salt"] for line in self.salts}
        return bytes.fromhex(salt)


@pytest.mark.skipif(shutil.which("openssl") is None, reason="no OpenSSL on this machine")
@pytest.mark.parametrize("ids", [[], [0], [1, 2**31 - 1], list(range(9_000))])
def test_a_digest_is_the_one_of_openssl(ids: list[int], tmp_path: Path) -> None:
    salt = bytes(range(32))
    (tmp_path / "ids").write_bytes(struct.pack(f"<{len(ids)}i", *ids))
    key = ["-mac", "HMAC", "-macopt", f"hexkey:{salt.hex()}"]
    printed = subprocess.run(
        ["openssl", "dgst", "-sha256", *key, str(tmp_path / "ids")],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    ).stdout
    assert prompt_digest(salt, ids) == printed.split()[-1]
    assert prompt_digest(salt, np.array(ids, np.int32)) == printed.split()[-1]  # type: ignore[arg-type]


@settings(max_examples=25)
@given(st.integers(0, 2**32), st.sampled_from([0, 4_000]))
def test_every_sequence_has_its_prompt_once(
    tmp_path_factory: pytest.TempPathFactory, seed: int, max_bytes: int
) -> None:
    """Whatever the host does to it, and into how many files the ledger goes."""
    folder = tmp_path_factory.mktemp("ledger")
    host = host_in(folder, seed, ledger_max_bytes=max_bytes)
    play_script(host, seed=seed, steps=30)
    written = Written(folder)
    assert len(written.sidecars) <= len(written.ledgers)
    for path, salt in zip(written.sidecars, written.salts, strict=True):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert path.with_name(path.name.replace(PROMPTS_SUFFIX, ".jsonl")) in written.ledgers
        assert salt == {"kind": "salt", "run_id": host.session.run_id, "salt": salt["salt"]}
    expected = {}
    by_digest = {}
    for request in host.requests:
        if request.sequence is None or request.sequence.name not in written.digests:
            continue
        digest = prompt_digest(written.salt, request.prompt)
        assert written.digests[request.sequence.name] == digest
        by_digest[digest] = request.prompt
        if not request.first:
            expected[request.sequence.name] = (request.sequence.request_key, request.prompt)
    # A sequence that goes on from another's tokens has its prompt, and need not say it again.
    found = {p["sequence"]: (p["request_key"], p["token_ids"]) for p in written.prompts}
    assert len(found) == len(written.prompts), "a prompt was written twice"
    assert {ids for _, ids in map(_hashable, found.values())} == {
        tuple(ids) for ids in by_digest.values()
    }
    for name, prompt in found.items():
        assert expected.get(name, prompt) == prompt


def _hashable(prompt: tuple[str, list[int]]) -> tuple[str, tuple[int, ...]]:
    return prompt[0], tuple(prompt[1])


def test_without_the_setting_nothing_is_kept(tmp_path: Path) -> None:
    loaded = Settings.load(ledger_dir=tmp_path, sample_count=4, max_ks_distance=1.0)
    source = ConstantEntropySource(name="system")
    host = ToyHost(
        SamplingSession(EngineFacts(engine="toy", model="none"), loaded, sources={"system": source})
    )
    request = host.add(prompt=[1, 2, 3])
    host.step()
    host.close()
    assert request.sequence is not None
    assert request.sequence.request.prompt.waiting == 0
    written = Written(tmp_path)
    assert (written.sidecars, set(written.digests.values())) == ([], {""})


def test_a_prompt_that_there_is_no_room_for_is_missed_in_a_gap(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(waiting_prompts, "MOST_IDS", 5)
    host = host_in(tmp_path)
    requests = [host.add(prompt=[index, 0, 0]) for index in range(2)]
    host.step()
    host.step()
    host.session.write()
    # What is written makes room again.
    host.add(prompt=[2, 0, 0])
    host.step()
    host.close()
    written = Written(tmp_path)
    assert [prompt["token_ids"][0] for prompt in written.prompts] == [0, 2]
    gaps = [line for line in written.lines if line["kind"] == "gap"]
    assert [(gap["reason"], gap["missing"]) for gap in gaps] == [("overflow", {"prompt": 1})]
    assert requests[1].sequence is not None
    assert written.digests[requests[1].sequence.name] == ""
    assert written.lines[-1]["lost"] == 1


def test_ids_that_no_model_has_cost_the_prompt_and_nothing_else(tmp_path: Path) -> None:
    host = host_in(tmp_path)
    host.add(prompt=[2**40])
    host.step()
    host.close()
    written = Written(tmp_path)
    assert not written.prompts
    assert [line["missing"] for line in written.lines if line["kind"] == "gap"] == [{"prompt": 1}]
    assert [line["kind"] for line in written.lines].count("token") == 1


def test_a_long_prompt_is_one_line(tmp_path: Path) -> None:
    host = host_in(tmp_path)
    ids = (np.arange(1_000_000) % 150_000).astype(np.int32)
    host.add(prompt=ids)
    host.step()
    host.close()
    (prompt,) = Written(tmp_path).prompts
    assert prompt["token_ids"] == ids.tolist()
