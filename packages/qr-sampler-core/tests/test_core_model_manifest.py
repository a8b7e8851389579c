# SPDX-License-Identifier: Apache-2.0
"""The manifest of a model is what ``sha256sum`` prints of its files."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import stat
import subprocess
from pathlib import Path

import pytest

from qr_sampler.errors import ConfigError
from qr_sampler.records.model_manifest import (
    DigestCache,
    HashingStoppedError,
    ModelManifest,
    default_cache,
    manifest_of,
)
from qr_sampler.records.model_manifest import manifest as manifest_module

FILES = {
    "config.json": b"{}",
    "model-00001-of-00002.safetensors": bytes(range(256)) * 50_000,
    "model-00002-of-00002.safetensors": b"",
    "tokenizer.model": b"pieces",
    "Zeta.json": b"[]",
    "deeper/ä.json": b"[1]",
}


@pytest.fixture
def model(tmp_path: Path) -> Path:
    directory = tmp_path / "model"
    for name, data in {**FILES, "README.md": b"hello", ".cache/x.json": b"", "a.png": b""}.items():
        path = directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    return directory


@pytest.mark.skipif(shutil.which("sha256sum") is None, reason="no sha256sum on this machine")
def test_it_is_what_sha256sum_prints(model: Path) -> None:
    names = sorted(FILES)
    printed = subprocess.run(
        ["sha256sum", "--", *names], cwd=model, capture_output=True, check=True, timeout=60
    ).stdout
    made = manifest_of(model)
    assert made.text.encode() == printed
    assert made.sha256 == hashlib.sha256(printed).hexdigest()
    assert set(made.files) == set(FILES), "no README, no pictures, nothing hidden"


def test_one_file_may_be_a_model(model: Path) -> None:
    (model / "one.gguf").write_bytes(b"weights")
    digest = hashlib.sha256(b"weights").hexdigest()
    assert manifest_of(model / "one.gguf") == ModelManifest({"one.gguf": digest})


def test_links_to_files_are_followed(model: Path, tmp_path: Path) -> None:
    snapshot = tmp_path / "snapshot"
    (snapshot / "deeper").mkdir(parents=True)
    for name in FILES:
        (snapshot / name).symlink_to(model / name)
    assert manifest_of(snapshot) == manifest_of(model)


@pytest.mark.parametrize("name", ["two\nlines.json", "back\\slash.json", "tab\t.json"])
def test_names_that_no_line_can_hold_are_refused(model: Path, name: str) -> None:
    (model / name).touch()
    with pytest.raises(ConfigError, match="name that no manifest can hold"):
        manifest_of(model)


def test_what_is_no_model_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match="holds no file of a model"):
        manifest_of(tmp_path / "nowhere")
    monkeypatch.setattr(manifest_module, "_MOST_FILES", 2)
    for index in range(3):
        (tmp_path / f"{index}.json").touch()
    with pytest.raises(ConfigError, match="more than 2 files"):
        manifest_of(tmp_path)


def test_a_file_that_changes_meanwhile_is_refused(model: Path) -> None:
    def append() -> bool:
        with (model / "config.json").open("ab") as file:
            file.write(b" ")
        return False

    with pytest.raises(ConfigError, match="changed while it was read"):
        manifest_of(model, stopped=append)


def test_it_can_be_stopped(model: Path, tmp_path: Path) -> None:
    with pytest.raises(HashingStoppedError):
        manifest_of(model, stopped=lambda: True)
    # What was hashed until then need not be hashed again.
    cache = tmp_path / "cache.json"
    answers = iter([False, False, True])
    with pytest.raises(HashingStoppedError):
        manifest_of(model, cache=cache, stopped=lambda: next(answers))
    assert str((model / "Zeta.json").resolve()) in json.loads(cache.read_bytes())


class TestCache:
    @pytest.fixture
    def cache(self, tmp_path: Path) -> Path:
        return tmp_path / "caches" / "qr-sampler" / "digests.json"

    def test_what_is_known_is_not_read_again(self, model: Path, cache: Path) -> None:
        made = manifest_of(model, cache=cache)
        assert stat.S_IMODE(cache.stat().st_mode) == 0o600
        assert manifest_of(model, cache=cache, stopped=lambda: True) == made

    def test_a_changed_file_is_read_again(self, model: Path, cache: Path) -> None:
        before = manifest_of(model, cache=cache)
        path = model / "tokenizer.model"
        status = path.stat()
        path.write_bytes(b"PIECES")
        # As somebody would who wants it to go unnoticed.
        os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
        after = manifest_of(model, cache=cache)
        changed = {name for name in FILES if before.files[name] != after.files[name]}
        assert changed == {"tokenizer.model"}
        assert after == manifest_of(model)

    @pytest.mark.parametrize(
        "damage",
        [b"", b"{", b"[]", b'{"a":1}', b"\xff", b"[" * 100_000, b'{"x": [["1"], "y"]}'],
    )
    def test_a_damaged_one_counts_as_empty(self, model: Path, cache: Path, damage: bytes) -> None:
        cache.parent.mkdir(parents=True)
        cache.write_bytes(damage)
        cache.chmod(0o600)
        assert manifest_of(model, cache=cache) == manifest_of(model)
        assert len(json.loads(cache.read_bytes())) == len(FILES)

    @pytest.mark.skipif(os.name != "posix", reason="modes are those of POSIX")
    def test_one_that_others_may_write_to_is_not_believed(self, model: Path, cache: Path) -> None:
        manifest_of(model, cache=cache)
        forged = {
            name: [each[0], "0" * 64] for name, each in json.loads(cache.read_bytes()).items()
        }
        cache.write_text(json.dumps(forged))
        assert set(manifest_of(model, cache=cache).files.values()) == {"0" * 64}, "it was believed"
        cache.chmod(0o666)
        assert manifest_of(model, cache=cache) == manifest_of(model)

    def test_it_is_bounded(self, cache: Path, tmp_path: Path) -> None:
        kept = DigestCache(cache)
        for index in range(5_000):
            kept.put(tmp_path / str(index), [1, 2, 3, 4], "0" * 64)
        kept.save()
        assert len(json.loads(cache.read_bytes())) == 4_096

    def test_one_that_cannot_be_written_is_done_without(self, model: Path, tmp_path: Path) -> None:
        (tmp_path / "file").touch()
        unusable = tmp_path / "file" / "digests.json"
        assert manifest_of(model, cache=unusable) == manifest_of(model)

    def test_every_user_has_one(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
        assert default_cache() == tmp_path / "qr-sampler" / "model-digests.json"
        monkeypatch.delenv("XDG_CACHE_HOME")

        def nowhere() -> Path:
            raise RuntimeError("no home")

        monkeypatch.setattr(Path, "home", nowhere)
        assert default_cache() is None
