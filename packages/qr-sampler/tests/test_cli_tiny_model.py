# SPDX-License-Identifier: Apache-2.0
"""The tiny model: what it is trained on, when it is made again, and what it learns."""

from __future__ import annotations

import hashlib
import json
import math
import sys
from collections.abc import Callable
from dataclasses import replace
from importlib.resources import files
from pathlib import Path

import pytest

from qr_sampler_cli.failures import MissingPackageError
from qr_sampler_cli.tiny_model import directory as model_directory
from qr_sampler_cli.tiny_model.directory import (
    MARKER,
    ForeignDirectoryError,
    TinyModelSummary,
    ensure_tiny_model,
    train_tiny_model,
)
from qr_sampler_cli.tiny_model.training import (
    ModelShape,
    Progress,
    TrainingRun,
    corpus_text,
    recipe_digest,
)

WEIGHTS = "model.safetensors"
RUN = TrainingRun(parameters=5, corpus_tokens=7, final_loss_nats=3.25)


class Trainer:
    """Stands in for the training: writes a file, or fails half-way."""

    def __init__(self) -> None:
        self.seeds: list[int] = []
        self.fails = False

    def __call__(
        self, directory: Path, shape: ModelShape, *, steps: int, seed: int, progress: object
    ) -> TrainingRun:
        self.seeds.append(seed)
        (directory / WEIGHTS).write_text(f"weights of seed {seed}")
        if self.fails:
            raise KeyboardInterrupt
        return RUN


@pytest.fixture
def trainer(monkeypatch: pytest.MonkeyPatch) -> Trainer:
    trainer = Trainer()
    monkeypatch.setattr(model_directory, "train_into", trainer)
    return trainer


def weights(directory: Path) -> str:
    return (directory / WEIGHTS).read_text()


def test_corpus_is_clean_prose_and_says_where_it_comes_from() -> None:
    text = corpus_text()
    assert 200_000 < len(text) < 400_000
    assert set(text) <= set(map(chr, range(32, 127))) | set("\nÆæ")
    letters = sum(character.isalpha() or character == " " for character in text)
    assert letters / len(text) > 0.95
    for trace in ("gutenberg", "transcrib", "proofread", "ebook", "copyright", "http", "["):
        assert trace not in text.lower()
    notice = files("qr_sampler_cli").joinpath("corpus", "NOTICE.txt").read_text(encoding="utf-8")
    assert "Isaac Newton" in notice
    assert "1730" in notice
    assert "public domain" in notice


def test_paragraphs_of_the_corpus_are_unwrapped() -> None:
    paragraphs = corpus_text().split("\n\n")
    assert len(paragraphs) > 200
    assert all("\n" not in paragraph and "  " not in paragraph for paragraph in paragraphs)
    assert max(map(len, paragraphs)) > 1000


def test_recipe_depends_on_all_that_decides_the_model() -> None:
    shape = ModelShape()
    digests = {
        recipe_digest(shape, steps=5, seed=0),
        recipe_digest(shape, steps=6, seed=0),
        recipe_digest(shape, steps=5, seed=1),
        recipe_digest(replace(shape, layers=3), steps=5, seed=0),
    }
    assert len(digests) == 4
    assert recipe_digest(ModelShape(), steps=5, seed=0) in digests


def test_same_model_is_reused(trainer: Trainer, tmp_path: Path) -> None:
    directory = tmp_path / "parent" / "model"
    made = ensure_tiny_model(directory, steps=5)
    found = ensure_tiny_model(directory, steps=5)
    assert trainer.seeds == [0]
    assert (made.reused, found.reused) == (False, True)
    assert found == replace(made, reused=True)
    assert found.final_loss_nats == RUN.final_loss_nats
    assert found.directory == directory


@pytest.mark.parametrize("change", [{"seed": 4}, {"steps": 6}])
def test_another_recipe_replaces_the_model(
    trainer: Trainer, tmp_path: Path, change: dict[str, int]
) -> None:
    directory = tmp_path / "model"
    ensure_tiny_model(directory, steps=5, seed=3)
    (directory / "left over").touch()
    assert not ensure_tiny_model(directory, **{"steps": 5, "seed": 3, **change}).reused
    assert weights(directory) == f"weights of seed {change.get('seed', 3)}"
    assert not (directory / "left over").exists()
    assert list(tmp_path.iterdir()) == [directory]


@pytest.mark.parametrize("marker", ["", "{", "[]", "{}", '{"recipe": 1}'])
def test_unreadable_marker_means_training_again(
    trainer: Trainer, tmp_path: Path, marker: str
) -> None:
    ensure_tiny_model(tmp_path / "model", steps=5)
    (tmp_path / "model" / MARKER).write_text(marker)
    assert not ensure_tiny_model(tmp_path / "model", steps=5).reused
    assert ensure_tiny_model(tmp_path / "model", steps=5).reused


def test_marker_of_the_right_recipe_but_other_facts_means_training_again(
    trainer: Trainer, tmp_path: Path
) -> None:
    ensure_tiny_model(tmp_path / "model", steps=5)
    marker = tmp_path / "model" / MARKER
    facts = json.loads(marker.read_text())
    del facts["vocab_size"]
    marker.write_text(json.dumps(facts))
    assert not ensure_tiny_model(tmp_path / "model", steps=5).reused


def test_interrupted_training_leaves_nothing(trainer: Trainer, tmp_path: Path) -> None:
    trainer.fails = True
    with pytest.raises(KeyboardInterrupt):
        train_tiny_model(tmp_path / "model", steps=5)
    assert list(tmp_path.iterdir()) == []


def test_interrupted_training_leaves_the_earlier_model(trainer: Trainer, tmp_path: Path) -> None:
    directory = tmp_path / "model"
    train_tiny_model(directory, steps=5, seed=1)
    trainer.fails = True
    with pytest.raises(KeyboardInterrupt):
        train_tiny_model(directory, steps=5, seed=2)
    assert weights(directory) == "weights of seed 1"
    assert list(tmp_path.iterdir()) == [directory]


def test_foreign_files_are_never_replaced(trainer: Trainer, tmp_path: Path) -> None:
    (tmp_path / "thesis").write_text("years of work")
    for place in (tmp_path, tmp_path / "thesis"):
        with pytest.raises(ForeignDirectoryError, match=str(place)):
            ensure_tiny_model(place, steps=5)
    assert trainer.seeds == []
    assert (tmp_path / "thesis").read_text() == "years of work"


def test_empty_directory_is_filled(trainer: Trainer, tmp_path: Path) -> None:
    assert not ensure_tiny_model(tmp_path, steps=5).reused
    assert weights(tmp_path) == "weights of seed 0"


def test_no_steps_are_refused(trainer: Trainer, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="not 0"):
        train_tiny_model(tmp_path / "model", steps=0)
    assert list(tmp_path.iterdir()) == []


def test_missing_torch_is_named_with_the_remedy(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(MissingPackageError, match=r"needs torch.*pip install vllm.*nox -s cpu"):
        train_tiny_model(tmp_path / "model", steps=1)
    assert list(tmp_path.iterdir()) == []


STEPS = 40


@pytest.fixture(scope="module")
def train(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., TinyModelSummary]:
    """Trains real models."""
    for name in ("torch", "transformers", "tokenizers"):
        pytest.importorskip(name, reason=f"needs {name}, which the vllm session installs")

    def train(*, seed: int, steps: int, progress: Progress | None = None) -> TinyModelSummary:
        directory = tmp_path_factory.mktemp("trained") / "model"
        return train_tiny_model(directory, steps=steps, seed=seed, progress=progress)

    return train


@pytest.fixture(scope="module")
def reports() -> list[tuple[int, int, float]]:
    """Returns what the training of ``trained`` told."""
    return []


@pytest.fixture(scope="module")
def trained(
    train: Callable[..., TinyModelSummary], reports: list[tuple[int, int, float]]
) -> TinyModelSummary:
    return train(seed=0, steps=STEPS, progress=lambda *report: reports.append(report))


def digest(summary: TinyModelSummary) -> str:
    return hashlib.sha256((summary.directory / WEIGHTS).read_bytes()).hexdigest()


def test_training_learns_and_reports_every_step(
    trained: TinyModelSummary, reports: list[tuple[int, int, float]]
) -> None:
    assert [step for step, _, _ in reports] == list(range(1, STEPS + 1))
    assert {steps for _, steps, _ in reports} == {STEPS}
    losses = [loss for _, _, loss in reports]
    even_guess = math.log(trained.vocab_size)
    assert losses[0] > even_guess
    # Knowing which tokens are common is already worth more than a nat.
    assert losses[-1] < even_guess - 1.0
    assert trained.final_loss_nats == pytest.approx(sum(losses[-20:]) / 20)


def test_training_depends_on_the_seed_alone_and_disturbs_nobody(
    train: Callable[..., TinyModelSummary],
) -> None:
    torch = pytest.importorskip("torch")
    first = train(seed=0, steps=2)
    state, threads = torch.random.get_rng_state(), torch.get_num_threads()
    assert digest(train(seed=0, steps=2)) == digest(first)
    assert digest(train(seed=1, steps=2)) != digest(first)
    assert torch.equal(torch.random.get_rng_state(), state)
    assert torch.get_num_threads() == threads


def test_saved_model_and_tokenizer_load_and_agree(trained: TinyModelSummary) -> None:
    transformers = pytest.importorskip("transformers")
    tokenizer = transformers.AutoTokenizer.from_pretrained(trained.directory)
    model = transformers.AutoModelForCausalLM.from_pretrained(trained.directory)
    text = "The Rays of Light \N{EM DASH} naïve 光.\n\nObs."
    assert tokenizer.decode(tokenizer(text).input_ids) == text
    assert len(tokenizer) == model.config.vocab_size == trained.vocab_size
    assert tokenizer.eos_token_id == model.generation_config.eos_token_id
    assert model.num_parameters() == trained.parameters
    assert model.config.max_position_embeddings >= 1024
