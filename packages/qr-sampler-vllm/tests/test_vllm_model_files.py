# SPDX-License-Identifier: Apache-2.0
"""Where the files of the engine's model are looked for."""

from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from qr_sampler_vllm.engine.model_files import model_files


def config(model: object, **changes: Any) -> SimpleNamespace:
    return SimpleNamespace(
        model_config=SimpleNamespace(model=model, revision="main"),
        load_config=SimpleNamespace(download_dir="/downloads"),
    )


def test_a_model_of_a_directory_is_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert model_files(config(str(tmp_path))) == tmp_path
    (tmp_path / "one.gguf").touch()
    monkeypatch.chdir(tmp_path)
    assert model_files(config("one.gguf")) == tmp_path / "one.gguf"


@pytest.mark.parametrize("found", ["/cache/snapshots/1/config.json", None, object()])
def test_a_model_of_hugging_face_is_in_its_cache(
    monkeypatch: pytest.MonkeyPatch, found: object
) -> None:
    asked: list[Any] = []

    def look(model: str, file: str, **where: Any) -> object:
        asked.append((model, file, where))
        return found

    hub = SimpleNamespace(try_to_load_from_cache=look)
    monkeypatch.setitem(sys.modules, "huggingface_hub", hub)  # type: ignore[arg-type]
    expected = Path(found).parent if isinstance(found, str) else None
    assert model_files(config("maker/model")) == expected
    where = {"cache_dir": "/downloads", "revision": "main"}
    assert asked == [("maker/model", "config.json", where)]


@pytest.mark.parametrize("error", [ValueError("Repo id must be in the form"), PermissionError()])
def test_a_name_that_the_library_refuses_stops_no_engine(
    monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise error

    hub = SimpleNamespace(try_to_load_from_cache=refuse)
    monkeypatch.setitem(sys.modules, "huggingface_hub", hub)  # type: ignore[arg-type]
    assert model_files(config("maker/model-GGUF:Q4_K_M")) is None
    assert model_files(config("s3://bucket/model")) is None


def test_without_the_library_nothing_is_known(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "huggingface_hub", raising=False)
    assert model_files(config("maker/model")) is None
    assert model_files(config("x" * 10_000)) is None
