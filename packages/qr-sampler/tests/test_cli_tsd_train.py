# SPDX-License-Identifier: Apache-2.0
"""``qr-sampler tsd train`` around a model that is a bigram, and around the tiny model."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

pytest.importorskip("qr_sampler_tsd", reason="qr-sampler-tsd is an extra of this package")
import numpy as np
from numpy.typing import NDArray

from qr_sampler_cli.commands import tsd_train
from qr_sampler_cli.commands.tsd_train import train
from qr_sampler_cli.main import app as main_app
from qr_sampler_cli.tiny_model.directory import train_tiny_model
from qr_sampler_tsd.proposers import BigramProposer, HeadProposer, load_proposer

V = 70
ROWS = np.random.default_rng(6).dirichlet(np.full(V, 0.3), size=V) * (1 - 1e-5) + 1e-5 / V

PAGE = Path(__file__).resolve().parents[3] / "docs" / "tsd" / "proposers.md"
BENCHMARKS = Path(__file__).resolve().parents[1] / "benchmarks"

app = typer.Typer()
app.command()(train)


class BigramTeacher:
    """A model whose law depends on the last token alone."""

    vocab_size = V
    longest = 65

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.sampled: list[dict[str, Any]] = []

    def encode(self, text: str) -> NDArray[np.int64]:
        return np.array([ord(character) - ord("a") for character in text])

    def logits(self, tokens: NDArray[np.int64]) -> NDArray[np.float32]:
        assert tokens.ndim == 2
        assert tokens.shape[1] < self.longest
        return np.log(ROWS[tokens]).astype(np.float32)

    def sample(
        self,
        count: int,
        length: int,
        *,
        seed: int,
        temperature: float,
        progress: Callable[[int, int], None],
    ) -> NDArray[np.int64]:
        rng, laws = np.random.default_rng(seed), ROWS ** (1 / temperature)
        laws /= laws.sum(axis=1, keepdims=True)
        tokens = np.empty((count, length), np.int64)
        for row in tokens:
            last = 0
            for place in range(length):
                last = row[place] = rng.choice(V, p=laws[last])
        progress(count, count)
        return tokens


@pytest.fixture
def bigram_teacher(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tsd_train, "Teacher", BigramTeacher)


def run(*arguments: str | Path) -> Any:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def acceptance(stdout: str) -> list[float]:
    (line,) = re.findall(r"expected acceptance .*", stdout)
    return [float(number) for number in re.findall(r"0\.\d{4}", line)]


@pytest.mark.usefixtures("bigram_teacher")
def test_a_table_of_a_bigram_model_is_nearly_the_model(tmp_path: Path) -> None:
    output = tmp_path / "table.npz"
    result = run("model", output, "--kind=bigram", f"--k={V}", "--tokens=4000", "--held-out=600")
    assert result.exit_code == 0, result.output
    # What is lacking of 1 are 8-bit codes and tokens that the text did not hold.
    assert acceptance(result.stdout)[0] > 0.98
    assert "learned from 4,032 tokens of the model's own" in result.stdout
    assert "on 640 held-out tokens" in result.stdout
    assert "L = 4: 4.9" in result.stdout
    assert "sampling the model" in result.stderr
    loaded = load_proposer(output)
    assert isinstance(loaded, BigramProposer)
    assert loaded.vocab_size == V


@pytest.mark.usefixtures("bigram_teacher")
def test_a_head_is_distilled_and_fine_tuned(tmp_path: Path) -> None:
    output = tmp_path / "head.npz"
    options = ("--tokens=4000", "--held-out=600", "--steps=400", "--width=2", "--context=1")
    result = run("model", output, f"--k={V}", *options, "--fine-tuning-steps=400")
    assert result.exit_code == 0, result.output
    tuned, distilled = acceptance(result.stdout)
    # Two hidden units cannot hold the rows, so that the objectives differ.
    assert 0.3 < distilled < tuned < 0.95
    assert "fine-tuning for acceptance: step 400 of 400" in result.stderr
    again = tmp_path / "again.npz"
    assert run("model", again, f"--k={V}", *options, "--fine-tuning-steps=400").exit_code == 0
    assert again.read_bytes() == output.read_bytes()
    plain = run("model", output, f"--k={V}", *options, "--fine-tuning-steps=0", "--force")
    assert acceptance(plain.stdout) == [distilled]
    loaded = load_proposer(output)
    assert isinstance(loaded, HeadProposer)
    assert (loaded.k, loaded.weights.context_tokens) == (V, 1)


@pytest.mark.usefixtures("bigram_teacher")
def test_a_corpus_is_read_and_its_end_is_held_out(tmp_path: Path) -> None:
    corpus = tmp_path / "corpus.txt"
    corpus.write_text("abcdefgh" * 60, "utf-8")
    options = ("--kind=bigram", "--corpus", corpus, "--held-out=80", "--k=3")
    result = run("model", tmp_path / "p.npz", *options)
    assert result.exit_code == 0, result.output
    assert "learned from 400 tokens of the corpus" in result.stdout
    assert "on 80 held-out tokens" in result.stdout
    # A corpus is not drawn from the model, so that nothing follows about its passes.
    assert "per pass" not in result.stdout
    short = run("model", tmp_path / "q.npz", *options, "--held-out=300")
    assert short.exit_code == 2
    assert "480 tokens" in short.stderr


@pytest.mark.usefixtures("bigram_teacher")
@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["there.npz"], "there.npz exists"),
        (["nowhere/p.npz"], "nowhere"),
        (["p.npz", "--corpus=absent.txt"], "absent.txt"),
        (["p.npz", "--corpus=there.npz"], "there.npz cannot be read"),
        (["p.npz", "--k=71"], "K = 71 is more than the 70 tokens"),
    ],
)
def test_what_cannot_be_done_is_said_at_once(
    arguments: list[str], words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("there.npz").write_bytes(b"\xff\xfe precious")
    result = run("model", *arguments)
    assert result.exit_code == 2
    assert result.stderr.startswith("error: ")
    assert words in result.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["there.npz"]


@pytest.mark.slow
@pytest.mark.skipif(
    sys.version_info[:2] != (3, 11),
    reason="takes seconds, and the same on every interpreter: runs on Python 3.11",
)
@pytest.mark.usefixtures("bigram_teacher")
@pytest.mark.skipif(not PAGE.exists(), reason="the page is not part of an sdist")
def test_the_commands_of_the_page_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    commands = re.findall(r"^qr-sampler tsd train (.*)$", PAGE.read_text("utf-8"), re.MULTILINE)
    for command in commands:
        result = run(*shlex.split(command))
        assert result.exit_code == 0, result.output
    kinds = [type(load_proposer(name)) for name in ("bigram.npz", "head.npz")]
    assert kinds == [BigramProposer, HeadProposer]
    assert len(commands) == 2


def test_it_is_a_command_of_qr_sampler() -> None:
    result = CliRunner().invoke(main_app, ["tsd", "train", "--help"])
    assert result.exit_code == 0
    assert "Learn a proposer from MODEL" in result.stdout


@pytest.mark.parametrize("missing", ["torch", "qr_sampler_tsd"])
def test_missing_packages_are_named(
    missing: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, missing, None)
    result = run(tmp_path, tmp_path / "p.npz")
    assert result.exit_code == 2
    assert re.search(
        rf"needs {missing}.*pip install (vllm|\./packages/qr-sampler-tsd)", result.stderr
    )


@pytest.fixture(scope="module")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    for name in ("torch", "transformers", "tokenizers"):
        pytest.importorskip(name, reason=f"needs {name}, which the vllm session installs")
    torch = pytest.importorskip("torch")
    threads = torch.get_num_threads()
    # For so small a model threads wait for each other longer than they work.
    torch.set_num_threads(1)
    directory = tmp_path_factory.mktemp("trained") / "model"
    train_tiny_model(directory, steps=40)
    yield directory
    torch.set_num_threads(threads)


@pytest.mark.parametrize("kind", ["bigram", "head"])
def test_the_tiny_model_is_learned_from(tiny_model: Path, kind: str, tmp_path: Path) -> None:
    output = tmp_path / "p.npz"
    options = ("--tokens=1024", "--held-out=128", "--steps=60", "--fine-tuning-steps=20")
    result = run(tiny_model, output, f"--kind={kind}", "--k=32", *options)
    assert result.exit_code == 0, result.output
    loaded = load_proposer(output)
    assert loaded.vocab_size == 2048
    # A payload of 32 tokens and an even tail, in place of 2048.
    assert loaded.psi(loaded.start([5])).ids.size == 32
    assert 0.2 < acceptance(result.stdout)[0] < 1


@pytest.mark.skipif(not BENCHMARKS.exists(), reason="benchmarks are not part of an sdist")
def test_the_benchmark_measures_every_way_of_drafting(tiny_model: Path, tmp_path: Path) -> None:
    output = tmp_path / "table.npz"
    options = ("--kind=bigram", "--k=32", "--tokens=512", "--held-out=128")
    assert run(tiny_model, output, *options).exit_code == 0
    sizes = ("--texts=2", "--tokens=6", "--oracle-texts=1", "--oracle-k=32")
    path = os.pathsep.join((str(BENCHMARKS.parent), *sys.path))
    answer = subprocess.run(
        [sys.executable, "-m", "benchmarks", str(tiny_model), str(output), *sizes],
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        check=True,
    )
    rows = [line.split(" | ") for line in answer.stdout.splitlines()[2:]]
    assert len(rows) == 2 * 4 * 2
    for row in rows:
        length = int(row[2])
        assert 1 <= float(row[4]) <= length + 1
        assert 1 <= float(row[5]) <= length + 1


def test_a_teacher_samples_what_it_says(tiny_model: Path) -> None:
    from qr_sampler_cli.tsd.teacher import Teacher, TeacherError

    teacher = Teacher(tiny_model)
    one, again = (teacher.sample(18, 5, seed=3) for _ in range(2))
    assert one.shape == (18, 5)
    assert np.array_equal(one, again)
    assert not np.array_equal(one, teacher.sample(18, 5, seed=4))
    logits, alone = teacher.logits(one[:2])[0], teacher.logits(one[:1])[0]
    assert np.allclose(logits, alone, atol=1e-5)
    assert logits.shape == (5, teacher.vocab_size)
    # What comes later changes nothing before it.
    assert np.allclose(logits[:3], teacher.logits(one[:1, :3])[0], atol=1e-5)
    tokens = teacher.encode("The Rays of Light")
    assert teacher.tokenizer.decode(tokens) == "The Rays of Light"
    for length in (0, teacher.longest):
        with pytest.raises(TeacherError, match=f"length={length}"):
            teacher.sample(1, length, seed=0)


def test_a_directory_without_a_model_is_refused(tiny_model: Path, tmp_path: Path) -> None:
    result = run(tmp_path, tmp_path / "p.npz")
    assert result.exit_code == 2
    assert "tiny-model" in result.stderr
    (tmp_path / "config.json").write_text("{}", "utf-8")
    result = run(tmp_path, tmp_path / "p.npz")
    assert result.exit_code == 2
    assert "no model that can be loaded" in result.stderr
