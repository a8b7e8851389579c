# SPDX-License-Identifier: Apache-2.0
"""Rung 6 of the audit on real engines: every token derived again, and what is forged found.

Run ``python rederivation.py MODEL [--tokens N] [--dtype float32]`` where vLLM, transformers and the
packages are installed. Three arms of N tokens each (fixed temperature with every filter, adaptive
temperatures, other amplifiers) are generated under both model runners, all requests at once, and
audited. Then single u are replaced by random numbers, one ledger for all, which the audit has to
find in as many tokens as it says that it would.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any, Final

LENGTH: Final = 100
"""Tokens of an answer."""

RUNNERS: Final = {
    "v1": {"VLLM_USE_V2_MODEL_RUNNER": "0"},
    "v2": {"VLLM_USE_V2_MODEL_RUNNER": "1", "TRITON_INTERPRET": "1"},
}

FILTERS: Final[tuple[dict[str, Any], ...]] = (
    {},
    {"qr_top_k": 40},
    {"qr_top_p": 0.9},
    {"qr_min_p": 0.05},
    {"qr_top_n_sigma": 1.0},
    {"qr_typical_p": 0.9},
    {"qr_top_k": 200, "qr_top_p": 0.95, "qr_min_p": 0.01, "qr_truncate_first": True},
)
STRATEGIES: Final[tuple[dict[str, Any], ...]] = (
    {"qr_temperature_strategy": "edt"},
    {"qr_temperature_strategy": "edt_paper"},
    {"qr_temperature_strategy": "dynatemp", "qr_top_p": 0.95},
    {"qr_temperature_strategy": "varentropy", "qr_varentropy_drift_weight": 0.2, "qr_min_p": 0.02},
)
AMPLIFIERS: Final[tuple[dict[str, Any], ...]] = (
    {"qr_signal_amplifier_type": "bit_zscore"},
    {"qr_signal_amplifier_type": "exact_sum", "qr_top_k": 100},
    {"qr_signal_amplifier_type": "uniform53", "qr_sample_count": 8, "qr_min_p": 0.01},
)
ARMS: Final = {"filters": FILTERS, "strategies": STRATEGIES, "amplifiers": AMPLIFIERS}


def generate(task: dict[str, Any]) -> None:
    """Generates the answers of a task with an engine in this process."""
    from vllm import LLM, SamplingParams  # type: ignore[import-not-found]

    llm = LLM(
        model=task["model"],
        dtype=task["dtype"],
        distributed_executor_backend="uni",
        enforce_eager=True,
        max_model_len=256,
    )
    prompts, params = [], []
    for arm, kinds in ARMS.items():
        for index in range(-(-task["tokens"] // LENGTH)):
            key = f"{arm} {index}"
            prompts.append(
                {"prompt_token_ids": list(range(300 + index, 305 + 3 * index % 97 + index))}
            )
            extra = {**kinds[index % len(kinds)], "qr_request_key": key, "qr_condition": arm}
            params.append(
                SamplingParams(
                    max_tokens=LENGTH, ignore_eos=True, detokenize=False, extra_args=extra
                )
            )
    outputs = llm.generate(prompts, params, use_tqdm=False)
    lines = [
        {"request_key": each.extra_args["qr_request_key"], "token_ids": output.prompt_token_ids}
        for each, output in zip(params, outputs, strict=True)
    ]
    Path(task["prompts"]).write_text("".join(f"{json.dumps(line)}\n" for line in lines))


def engine(model: Path, folder: Path, runner: str, tokens: int, dtype: str) -> None:
    """Writes a ledger and its prompts to *folder*."""
    task = {
        "model": str(model),
        "dtype": dtype,
        "tokens": tokens,
        "prompts": str(folder / "prompts"),
    }
    kept = {name: value for name, value in os.environ.items() if not name.startswith("QR_")}
    variables = {
        **kept,
        "QR_LEDGER_DIR": str(folder / "ledger"),
        "QR_FIXED_TEMPERATURE": "0.9",
        "QR_SAMPLE_COUNT": "1024",
        "QR_MAX_KS_DISTANCE": "1",
        "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
        "VLLM_CPU_KVCACHE_SPACE": "1",
        "VLLM_LOGGING_LEVEL": "ERROR",
        "HF_HUB_OFFLINE": "1",
        **RUNNERS[runner],
    }
    subprocess.run(
        [sys.executable, __file__, "--generate", json.dumps(task)], env=variables, check=True
    )


def audited(model: Path, ledger: Path, prompts: Path, dtype: str) -> dict[str, Any]:
    """Returns what the audit says of rung 6."""
    command = [sys.executable, "-m", "qr_sampler_cli", "audit", str(ledger), "--json"]
    options = [f"--model={model}", f"--prompts={prompts}", f"--dtype={dtype}"]
    done = subprocess.run([*command, *options], capture_output=True, text=True, check=False)
    if done.returncode > 1 or not done.stdout:
        raise SystemExit(done.stderr)
    (run,) = json.loads(done.stdout)["runs"]
    rung: dict[str, Any] = run["rungs"][5]
    return rung


def changed(ledger: Path, target: Path, edit: Callable[[dict[str, Any]], None]) -> Path:
    """Writes a ledger whose chain is computed anew after *edit* has changed its lines."""
    prev = "0" * 64
    target.mkdir()
    path = target / ledger.name
    with path.open("wb") as file:
        for line in ledger.read_bytes().splitlines():
            fields = json.loads(line)
            edit(fields)
            fields["prev"] = prev
            if fields["kind"] == "close":
                fields["head"] = prev
            made = json.dumps(fields, separators=(",", ":"), ensure_ascii=False).encode()
            prev = hashlib.sha256(made).hexdigest()
            file.write(made + b"\n")
    return path


def show(name: str, rung: dict[str, Any], seconds: float) -> None:
    """Prints what is said of a ledger."""
    figures = {**rung["figures"]}
    print(f"--- {name}: {rung['status']}, {rung['failed']} failures, {seconds:.0f} s")
    print(json.dumps(figures, indent=1))
    for each in rung["failures"][:3]:
        print(f"  {each['where'].rpartition('/')[2]}: {each['what']}")
    for each in rung["cannot_be_said"]:
        print(f"  cannot be said: {each['what']}, {each['count']} times")


def main() -> None:
    """Runs everything and ends with status 1 if anything is not as it has to be."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", type=Path, nargs="?")
    parser.add_argument("--tokens", type=int, default=3000, help="of each arm")
    parser.add_argument("--dtype", default="float32", help="of the engine")
    parser.add_argument("--rescore-dtype", default="float32", help="of the audit")
    parser.add_argument("--generate", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.generate:
        generate(json.loads(options.generate))
        return
    wrong = []
    for runner in RUNNERS:
        with tempfile.TemporaryDirectory() as place:
            folder = Path(place)
            engine(options.model, folder, runner, options.tokens, options.dtype)
            (ledger,) = (folder / "ledger").glob("*[0-9a-f].jsonl")
            prompts, start = folder / "prompts", time.monotonic()
            rung = audited(options.model, ledger, prompts, options.rescore_dtype)
            show(f"{runner}, {options.dtype}", rung, time.monotonic() - start)
            if rung["status"] != "holds" or rung["figures"]["tokens"] < 3 * options.tokens:
                wrong.append(f"{runner} does not hold")
            script = Random(1)
            forged = 0

            def forge(fields: dict[str, Any], script: Random = script) -> None:
                nonlocal forged
                if fields["kind"] == "token" and script.random() < 0.5:
                    fields["u"] = script.uniform(1e-9, 1.0 - 1e-9)
                    forged += 1

            path = changed(ledger, folder / "forged", forge)
            rung = audited(options.model, path, prompts, options.rescore_dtype)
            found = rung["failed"] / forged
            print(
                f"{runner}: {rung['failed']} of {forged} forged u found, {found:.1%}; expected "
                f"{rung['figures']['exposed']:.1%}"
            )
            if abs(found - rung["figures"]["exposed"]) > 5.0 * (0.25 / forged) ** 0.5:
                wrong.append(f"{runner}: forged u are not found as often as is said")
    if wrong:
        raise SystemExit("; ".join(wrong))


if __name__ == "__main__":
    main()
