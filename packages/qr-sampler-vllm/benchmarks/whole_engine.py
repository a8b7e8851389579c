# SPDX-License-Identifier: Apache-2.0
"""Tokens per second of a whole engine with the plugin, against the same engine without it.

Every model has one engine, in a process of its own. Requests that the plugin samples and requests
that it leaves to vLLM (``qr_bypass``) take turns in it, so that both meet the same machine.
With ``--ledger``, rounds with a ledger and without take turns; with ``--health``, those with health
tests and without.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from statistics import median
from typing import Any, Final, NamedTuple, TypeAlias

from benchmarks.engine_process import ENVIRONMENT, OPTIONS
from benchmarks.health_switch import HealthSwitch
from benchmarks.ledger_switch import LedgerSwitch

__all__ = ["main"]

ROUNDS: Final = 7
SWITCHED_ROUNDS: Final = 15
"""More of them: the difference is small."""
BLOCK_BYTES: Final = (64, 10_240)
WIDE_VOCABULARY: Final = 151_936
PROMPT_TOKEN: Final = 300
MISSED: Final = "MISSED"
SWITCHED: Final = {"ledger": "a ledger", "health": "health tests"}
"""What can be switched off and on, by the option that asks for it."""

Switch: TypeAlias = LedgerSwitch | HealthSwitch


class Setting(NamedTuple):
    """One row of the table."""

    model: str
    """``tiny``, or ``wide`` for the same with a large vocabulary and random weights."""
    rows: int
    """Sequences at a time."""
    tokens: int
    """Tokens of each sequence in a round."""
    gate: float | None = None
    """The least share of vLLM's tokens per second with blocks of 64 bytes, if one is demanded."""


SETTINGS: Final = (
    Setting("tiny", 1, 200, 0.90),
    Setting("tiny", 32, 240, 0.70),
    Setting("tiny", 256, 64, 0.70),
    Setting("wide", 1, 100),
    Setting("wide", 32, 16, 0.95),
)
TITLES: Final = {
    "tiny": "tiny, V = 2,048",
    "wide": f"tiny, V = {WIDE_VOCABULARY:,}, random weights",
}


def main() -> int:
    """Prints a Markdown table; returns 1 when ``--check`` was given and a gate was missed."""
    parser = argparse.ArgumentParser(prog="uv run nox -s bench_engine --", description=__doc__)
    parser.add_argument("--model", type=Path, help="directory of a tiny model; made if left out")
    for name, words in SWITCHED.items():
        parser.add_argument(
            f"--{name}",
            dest="switched",
            action="store_const",
            const=name,
            help=f"compare with and without {words} instead",
        )
    parser.add_argument("--check", action="store_true", help="fail when a gate is missed")
    parser.add_argument("--worker", choices=sorted(TITLES), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.worker is not None:
        print(json.dumps(worked(arguments)))
        return 0
    with tempfile.TemporaryDirectory() as folder:
        if arguments.model is None:
            arguments.model = Path(folder, "tiny")
            make = [sys.executable, "-m", "qr_sampler_cli", "tiny-model", str(arguments.model)]
            subprocess.run([*make, "--steps", "20"], check=True, stdout=sys.stderr)
        found = [line for name in TITLES for line in measured(arguments, name, Path(folder))]
    if arguments.switched:
        print("\n".join(switched_table(found, SWITCHED[arguments.switched])))
        return 0
    print("\n".join(table(found)))
    return int(arguments.check and any(verdict(*line) == MISSED for line in found))


def worked(arguments: argparse.Namespace) -> list[dict[str, float]]:
    """Returns what the engine of this process has done, one setting after the other."""
    settings = settings_of(arguments)
    if not arguments.switched:
        llm = engine(arguments)
        return [measure(llm, one) for one in settings]
    switch = LedgerSwitch() if arguments.switched == "ledger" else HealthSwitch()
    llm = engine(arguments)
    return [measure_switched(llm, switch, one) for one in settings]


def settings_of(arguments: argparse.Namespace) -> list[Setting]:
    """Returns the settings that the engine of this process serves."""
    return [one for one in SETTINGS if one.model == arguments.worker]


def measured(
    arguments: argparse.Namespace, model: str, folder: Path
) -> Iterator[tuple[Setting, dict[str, float]]]:
    """Yields what an engine in a process of its own has done, one setting after the other."""
    print(f"... {TITLES[model]}", file=sys.stderr, flush=True)
    environment = {
        **{key: value for key, value in os.environ.items() if not key.startswith("QR_")},
        **ENVIRONMENT,
        "QR_FIXED_TEMPERATURE": "1",
    }
    command = [sys.executable, "-m", "benchmarks.whole_engine", f"--model={arguments.model}"]
    if arguments.switched:
        command.append(f"--{arguments.switched}")
    if arguments.switched == "ledger":
        environment["QR_LEDGER_DIR"] = str(folder / "ledger")
    done = subprocess.run(
        [*command, f"--worker={model}"],
        env=environment,
        check=True,
        stdout=subprocess.PIPE,
        text=True,
    )
    chosen = [one for one in SETTINGS if one.model == model]
    yield from zip(chosen, json.loads(done.stdout.splitlines()[-1]), strict=True)


def engine(arguments: argparse.Namespace) -> Any:
    """Returns the engine that a worker measures."""
    from vllm import LLM

    wide: dict[str, Any] = {
        "load_format": "dummy",
        "hf_overrides": {"vocab_size": WIDE_VOCABULARY},
    }
    return LLM(
        model=str(arguments.model),
        max_model_len=256,
        max_num_seqs=max(one.rows for one in settings_of(arguments)),
        **OPTIONS,
        **(wide if arguments.worker == "wide" else {}),
    )


def measure(llm: Any, setting: Setting) -> dict[str, float]:
    """Returns tokens per second without the plugin, and the plugin's share of it by block size.

    Contenders take turns in an order that rotates. A ratio is formed inside a round, and the median
    over the rounds counts.
    """
    contenders: dict[str, dict[str, Any]] = {"bypass": {"qr_bypass": 1}}
    contenders |= {str(size): {"qr_sample_count": size} for size in BLOCK_BYTES}
    seconds: dict[str, list[float]] = {name: [] for name in contenders}
    names = list(contenders)
    # The first round warms up.
    for turn in range(1 + ROUNDS):
        for place in range(len(names)):
            name = names[(turn + place) % len(names)]
            seconds[name].append(generate(llm, setting, contenders[name]))
    rounds = {name: durations[1:] for name, durations in seconds.items()}
    shares = {
        name: median(b / own for b, own in zip(rounds["bypass"], rounds[name], strict=True))
        for name in names[1:]
    }
    return {"bypass": setting.rows * setting.tokens / median(rounds["bypass"]), **shares}


def measure_switched(llm: Any, switch: Switch, setting: Setting) -> dict[str, float]:
    """Returns tokens per second while *switch* is off, and for each size of block what it costs.

    Contenders take turns as in :func:`measure`. A round ends when its records are written. The cost
    is the share of the tokens per second that is left, and the processor time of all threads and
    of the process that writes.
    """
    names = [(size, on) for size in BLOCK_BYTES for on in (False, True)]
    rounds: dict[tuple[int, bool], list[tuple[float, float]]] = {name: [] for name in names}
    for turn in range(1 + SWITCHED_ROUNDS):
        for place in range(len(names)):
            size, switch.on = name = names[(turn + place) % len(names)]
            rounds[name].append(timed_round(llm, switch, {"qr_sample_count": size}, setting))
    tokens = setting.rows * setting.tokens
    found = {"plain": tokens / median(each for each, _ in rounds[BLOCK_BYTES[0], False][1:])}
    for size in BLOCK_BYTES:
        pairs = list(zip(rounds[size, False][1:], rounds[size, True][1:], strict=True))
        found[f"share {size}"] = median(without[0] / own[0] for without, own in pairs)
        found[f"cpu {size}"] = median(
            1e6 * (own[1] - without[1]) / tokens for without, own in pairs
        )
    return found


def timed_round(
    llm: Any, switch: Switch, extra: dict[str, Any], setting: Setting
) -> tuple[float, float]:
    """Returns the seconds, and those of processors, until all tokens of a round are recorded."""
    from qr_sampler_vllm import flush_records

    began_s, used_s = time.perf_counter(), time.process_time() + switch.outside_s()
    generate(llm, setting, extra)
    flush_records()
    ended_s = time.perf_counter()
    return ended_s - began_s, time.process_time() + switch.outside_s() - used_s


def generate(llm: Any, setting: Setting, extra: dict[str, Any]) -> float:
    """Returns the seconds that all sequences of *setting* take."""
    from vllm import SamplingParams

    params = SamplingParams(
        max_tokens=setting.tokens, ignore_eos=True, detokenize=False, extra_args=extra
    )
    prompts = [{"prompt_token_ids": [PROMPT_TOKEN + row] * 4} for row in range(setting.rows)]
    start = time.perf_counter()
    llm.generate(prompts, params, use_tqdm=False)
    return time.perf_counter() - start


def table(found: list[tuple[Setting, dict[str, float]]]) -> Iterator[str]:
    """Yields the lines of a Markdown table."""
    heads = " | ".join(f"plugin, {size:,}-byte blocks" for size in BLOCK_BYTES)
    yield f"| model | rows | vLLM alone, tokens/s | {heads} | gate | verdict |"
    yield f"| --- | ---: | ---: |{' ---: |' * len(BLOCK_BYTES)} ---: | --- |"
    for setting, one in found:
        shares = " | ".join(f"{one[str(size)]:.2f}" for size in BLOCK_BYTES)
        gate = "-" if setting.gate is None else f"{setting.gate:.2f}"
        yield (
            f"| {TITLES[setting.model]} | {setting.rows} | {one['bypass']:,.0f} | {shares} "
            f"| {gate} | {verdict(setting, one)} |"
        )


def switched_table(found: list[tuple[Setting, dict[str, float]]], what: str) -> Iterator[str]:
    """Yields the lines of a Markdown table of what *what* costs."""
    heads = " | ".join(f"share, {size:,}-byte blocks | µs a token" for size in BLOCK_BYTES)
    yield f"| model | rows | without {what}, tokens/s | {heads} |"
    yield f"| --- | ---: | ---: |{' ---: | ---: |' * len(BLOCK_BYTES)}"
    for setting, one in found:
        cells = " | ".join(
            f"{one[f'share {size}']:.3f} | {one[f'cpu {size}']:.1f}" for size in BLOCK_BYTES
        )
        yield f"| {TITLES[setting.model]} | {setting.rows} | {one['plain']:,.0f} | {cells} |"


def verdict(setting: Setting, one: dict[str, float]) -> str:
    """Returns whether the share with the shorter blocks reaches the gate."""
    if setting.gate is None:
        return "-"
    return "pass" if one[str(BLOCK_BYTES[0])] >= setting.gate else MISSED


if __name__ == "__main__":
    sys.exit(main())
