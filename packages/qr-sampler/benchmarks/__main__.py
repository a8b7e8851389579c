# SPDX-License-Identifier: Apache-2.0
"""What drafting saves on a model: ``python -m benchmarks MODEL PROPOSER.npz ...``.

Run it with this package's folder on ``PYTHONPATH``, where torch and transformers are installed.
"""

from __future__ import annotations

import argparse
import itertools
import statistics
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.drafting import Run, generate
from qr_sampler_cli.tsd.teacher import Teacher
from qr_sampler_tsd import SeededUniforms
from qr_sampler_tsd.proposers import OracleProposer, Proposer, load_proposer
from qr_sampler_tsd.proposers.head import softmax
from qr_sampler_tsd.train import Evaluation, evaluate
from qr_sampler_tsd.verification import verify_block, verify_tokens

PROMPT_TOKENS = 8
PROMPT_SEED = 10**6
LARGEST_DIFFERENCE = 1e-4
COLUMNS = (
    "proposer",
    "acceptance",
    "L",
    "verification",
    "tokens per pass, expected",
    "measured",
    "speed-up, wall clock",
    "speed-up, CPU time",
    "time in the target",
)
VERIFIERS = {"token": verify_tokens, "block": verify_block}


def main() -> None:
    """Prints a table in Markdown."""
    arguments = _arguments()
    teacher = Teacher(arguments.model)
    teacher.torch.set_num_threads(arguments.threads)
    oracle = OracleProposer(
        lambda tokens: _laws(teacher, tokens)[-1], teacher.vocab_size, arguments.oracle_k
    )
    contenders: dict[str, Proposer[Any]] = {}
    if arguments.oracle_texts:
        contenders[f"oracle, K = {arguments.oracle_k}"] = oracle
    contenders |= {path.stem: load_proposer(path) for path in arguments.proposers}
    prompts = teacher.sample(arguments.texts, PROMPT_TOKENS, seed=PROMPT_SEED)
    plain = _warm_and_plain(teacher, prompts, arguments.tokens)
    print("| " + " | ".join(COLUMNS) + " |\n" + "| --- " * len(COLUMNS) + "|")
    for name, proposer in contenders.items():
        texts = arguments.oracle_texts if proposer.is_oracle else arguments.texts
        expected = _expected(proposer, plain[:texts])
        for length, rule in itertools.product(range(1, 5), VERIFIERS):
            tokens = expected.tokens_per_pass(length, joint=rule == "block")
            cells = (name, f"{expected.acceptance:.3f}", str(length), rule, f"{tokens:.2f}")
            measured = _measured(teacher, prompts[:texts], arguments.tokens, proposer, length, rule)
            print("| " + " | ".join(cells + measured) + " |", flush=True)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="benchmarks", description=__doc__)
    parser.add_argument("model", type=Path)
    parser.add_argument("proposers", type=Path, nargs="+", help="files of 'qr-sampler tsd train'")
    parser.add_argument("--texts", type=int, default=16)
    parser.add_argument("--tokens", type=int, default=128, help="new tokens of each text")
    parser.add_argument("--oracle-k", type=int, default=64, help="head of the oracle's payloads")
    parser.add_argument("--oracle-texts", type=int, default=4, help="0 leaves it out")
    parser.add_argument("--threads", type=int, default=1)
    return parser.parse_args()


def _measured(
    teacher: Teacher, prompts: Any, count: int, proposer: Proposer[Any], length: int, rule: str
) -> tuple[str, str, str, str]:
    """Returns the last four columns; every text is timed beside one without drafts."""
    runs, plain_runs, ratios = [], [], []
    for number, prompt in enumerate(prompts.tolist()):
        plain = generate(teacher, prompt, count, SeededUniforms(2 * number))
        drafted = generate(
            teacher,
            prompt,
            count,
            SeededUniforms(2 * number + 1),
            proposer=proposer,
            length=length,
            verify=VERIFIERS[rule],
        )
        runs.append(drafted)
        plain_runs.append(plain)
        ratios.append((plain.seconds / plain.new_tokens) / (drafted.seconds / drafted.new_tokens))
    tokens = sum(run.new_tokens for run in runs) / sum(run.passes for run in runs)
    share = sum(run.target_seconds for run in runs) / sum(run.seconds for run in runs)
    if proposer.is_oracle:
        return f"{tokens:.2f}", "-", "-", "-"
    cpu = _cpu_per_token(plain_runs) / _cpu_per_token(runs)
    return f"{tokens:.2f}", f"{statistics.median(ratios):.2f}", f"{cpu:.2f}", f"{share:.0%}"


def _cpu_per_token(runs: list[Run]) -> float:
    return sum(run.cpu_seconds for run in runs) / sum(run.new_tokens for run in runs)


def _warm_and_plain(teacher: Teacher, prompts: Any, count: int) -> list[Run]:
    """Returns texts without drafts and their laws; checks the cache against whole passes."""
    generate(teacher, prompts[0].tolist(), count, SeededUniforms(0))
    runs = [
        generate(teacher, prompt, count, SeededUniforms(2 * number), keep_laws=True)
        for number, prompt in enumerate(prompts.tolist())
    ]
    whole = _laws(teacher, runs[0].tokens[:-1])[-count:]
    difference = float(np.abs(whole - np.array(runs[0].laws)).max())
    if difference > LARGEST_DIFFERENCE:
        raise SystemExit(f"cached laws differ from uncached ones by {difference}")
    return runs


def _expected(proposer: Proposer[Any], runs: list[Run]) -> Evaluation:
    """Returns the evaluation along texts of the model, the prompt being context only."""
    parts = []
    for run in runs:
        begin = len(run.tokens) - run.new_tokens
        parts.append(_after(proposer, run.tokens, begin, np.array(run.laws)))
    return Evaluation.joined(parts)


def _after(proposer: Proposer[Any], tokens: list[int], begin: int, laws: Any) -> Evaluation:
    """Evaluates from the last token of the prompt on; states know the whole prompt."""
    return evaluate(proposer, tokens[begin - 1 : -1], laws, before=tokens[: begin - 1])


def _laws(teacher: Teacher, tokens: Any) -> Any:
    return softmax(teacher.logits(np.asarray(tokens, np.int64)[None])[0].astype(np.float64))


if __name__ == "__main__":
    main()
