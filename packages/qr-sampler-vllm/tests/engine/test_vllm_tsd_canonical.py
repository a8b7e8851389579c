# SPDX-License-Identifier: Apache-2.0
"""The canonical mode: the law of the text, acceptance, and where its numbers come from.

The source is a generator that the script seeds, so that every run is the same. The rate of false
alarms of each statistical check is 1e-9, that of any other seed.
"""

from __future__ import annotations

import math
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from itertools import product
from typing import Any

import numpy as np
import pytest
from scipy import stats

ALLOWED = [300, 301, 302, 303]
TEMPERATURE = 0.8
TOP_K = 3
TRAINED_AT = 1.0
TEXTS = 2000
DRAFTS = 3
RATE = 1e-9
TAIL = None
"""Stands for all tokens that are not allowed."""

UNITS = {"token": "simulated", "block": "pbit_tree"}
"""By verifier, what draws the drafts."""

SOURCE = """
    import numpy as np
    from qr_sampler import EntropySource

    class SeededSource(EntropySource):
        name = "seeded"
        blocks = False
        # The same seed brings the same bytes, which health tests object to.
        min_entropy_per_byte = 0.0
        generator = None
        draws = []

        def get_random_bytes(self, n):
            self.draws.append(n)
            return SeededSource.generator.bytes(n)
"""

SERVE = """
    import qr_seeded

    llm = engine()
    readers = set()

    def seeded(seed):
        qr_seeded.SeededSource.generator = np.random.Generator(np.random.PCG64(seed))

    def texts(count, key):
        request = task["laws"]
        request["extra"]["qr_request_key"] = key
        prompt = {"prompt_token_ids": task["prompt"]}
        params = [parameters(request)] * count
        outputs = llm.generate([prompt] * count, params, use_tqdm=False)
        return [list(output.outputs[0].token_ids) for output in outputs]

    with no_other_entropy(readers):
        seeded(1)
        found = texts(task["count"], "law")
        again = []
        for seed in (7, 7, 8):
            seeded(seed)
            again.append(texts(40, "again"))

        # What vLLM does with requests in between: everything at once.
        served, aborted = serve(llm, task["requests"])
    # Those that are left to vLLM take its own random numbers.
    served |= serve(llm, task["bypassed"])[0]
    qr_sampler_vllm.flush_records()

    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(task["model"], dtype=torch.float32)
    with torch.no_grad():
        texts = torch.tensor([task["prompt"] + text for text in task["texts"]])
        rows = model(texts).logits[:, :, task["allowed"]]
    logits = {}
    for text, own in zip(task["texts"], rows):
        for length in range(len(text) + 1):
            prefix = json.dumps(text[:length])
            logits[prefix] = own[len(task["prompt"]) + length - 1].tolist()
    result({
        "texts": found, "again": again, "logits": logits, "preemptions": preemptions(llm),
        "drawn": sum(qr_seeded.SeededSource.draws), "readers": sorted(readers),
        "served": served, "aborted": aborted,
    })
"""

ENDLESS = {"max_tokens": 60, "ignore_eos": True}
FEW = {"allowed_token_ids": [*ALLOWED, 0]}
REQUESTS: dict[str, dict[str, Any]] = {
    "long prompt": {"prompt_tokens": 80, "params": ENDLESS},
    "four samples": {"prompt_tokens": 9, "params": {**ENDLESS, **FEW, "n": 4}},
    "aborted": {"prompt_tokens": 7, "params": {**ENDLESS, **FEW}, "abort_at": 10},
    "stop token": {"prompt_tokens": 5, "params": {**ENDLESS, **FEW, "stop_token_ids": [301]}},
    "late stop": {
        "prompt_tokens": 5,
        "params": {**ENDLESS, **FEW, "stop_token_ids": [301], "min_tokens": 30},
    },
    "penalised": {
        "prompt_tokens": 5,
        "params": {**ENDLESS, **FEW, "repetition_penalty": 1.3, "presence_penalty": 0.4},
    },
    "grammar": {"prompt_tokens": 5, "params": {"max_tokens": 40, "regex": "(a|b|cd){12}"}},
    "model length": {"prompt_tokens": 230, "params": {"max_tokens": 200, "ignore_eos": True}},
    "undecidable": {
        "prompt_tokens": 5,
        "params": {
            **ENDLESS,
            "allowed_token_ids": [301],
            "stop_token_ids": [301],
            "min_tokens": 4,
        },
    },
    **{f"crowd {n}": {"prompt_tokens": 5, "params": {**ENDLESS, **FEW}} for n in range(12)},
}


BYPASSED: dict[str, dict[str, Any]] = {
    "left to vllm": {"prompt_tokens": 5, "params": ENDLESS, "extra": {"qr_bypass": 1}},
    "beside it": {"prompt_tokens": 5, "params": {**ENDLESS, **FEW}},
}


def softmax(logits: list[float], temperature: float, kept: int) -> dict[int, float]:
    """The law over the allowed tokens: temperature, then the most probable ones."""
    weights = [math.exp((value - max(logits)) / temperature) for value in logits]
    best = sorted(range(len(weights)), key=lambda index: -weights[index])[:kept]
    total = sum(weights[index] for index in best)
    return {
        token: weights[index] / total if index in best else 0.0
        for index, token in enumerate(ALLOWED)
    }


class Laws:
    """The exact laws of target and proposal, from the logits of another implementation."""

    def __init__(self, logits: dict[str, list[float]], proposal: dict[int, float]) -> None:
        self._targets = {
            tuple(map(int, text.strip("[]").split(", ") if text != "[]" else ())): softmax(
                row, TEMPERATURE, TOP_K
            )
            for text, row in logits.items()
        }
        self.q: dict[int | None, float] = {**proposal, TAIL: max(1.0 - sum(proposal.values()), 0.0)}

    def p(self, text: tuple[int, ...]) -> dict[int, float]:
        return self._targets[text]

    def joint(self, length: int) -> dict[tuple[int, ...], float]:
        """The law of the first tokens."""
        return {
            text: math.prod(self.p(text[:place])[text[place]] for place in range(length))
            for text in product(ALLOWED, repeat=length)
        }

    def blocks(self, first: int) -> Iterator[tuple[float, list[int | None]]]:
        """All blocks of drafts after one token, with their probabilities."""
        possible = [draft for draft in (*ALLOWED, TAIL) if self.q[draft] > 0]
        for drafts in product(possible, repeat=DRAFTS):
            yield math.prod(self.q[draft] for draft in drafts), list(drafts)

    def accepted(self, verifier: str) -> tuple[float, float]:
        """Mean and variance of the number of drafts of the first block that stand."""
        moments = [0.0, 0.0]
        for first, chance in self.p(()).items():
            if chance == 0.0:
                continue
            for weight, drafts in self.blocks(first):
                for count, stands in enumerate(self._stand(first, drafts, verifier)):
                    moments[0] += chance * weight * stands * count
                    moments[1] += chance * weight * stands * count**2
        return moments[0], moments[1] - moments[0] ** 2

    def _stand(self, first: int, drafts: list[int | None], verifier: str) -> list[float]:
        """The probability that 0, 1 ... of *drafts* stand, in the formulas of the papers."""
        joint, alphas, h = [1.0], [], [1.0]
        for place, draft in enumerate(drafts):
            if draft is TAIL:
                joint.append(0.0)
                alphas.append(0.0)
                continue
            known = None not in drafts[:place]
            p = self.p((first, *drafts[:place]))[draft] if known else 0.0  # type: ignore[arg-type]
            alphas.append(min(1.0, p / self.q[draft]))
            joint.append(min(1.0, joint[-1] * p / self.q[draft]))
        if verifier == "token":
            stand = [math.prod(alphas[:count]) for count in range(DRAFTS + 1)]
            return [stand[count] - (*stand, 0.0)[count + 1] for count in range(DRAFTS + 1)]
        for count in range(1, DRAFTS):
            rest = 0.0
            if joint[count] > 0:
                row = self.p((first, *drafts[:count]))  # type: ignore[arg-type]
                rest = sum(max(joint[count] * row[t] - self.q[t], 0.0) for t in ALLOWED)
            slack = rest + 1.0 - joint[count]
            h.append(rest / slack if slack > 0 else 1.0)
        h.append(joint[DRAFTS])
        return [
            h[count] * math.prod(1.0 - x for x in h[count + 1 :]) for count in range(DRAFTS + 1)
        ]


class Run:
    """What one engine did."""

    def __init__(self, engine: Any, site: Any, tsd: Any, verifier: str) -> None:
        site.install(
            "qr_seeded",
            SOURCE,
            {"qr_sampler.entropy_sources": "seeded = qr_seeded:SeededSource"},
        )
        proposal = {300: 0.35, 301: 0.1, 302: 0.25, 303: 0.2}
        tsd.save(proposal, temperature=TRAINED_AT)
        task = {
            "prompt": [300, 310, 320],
            "allowed": ALLOWED,
            "texts": [list(text) for text in product(ALLOWED, repeat=4)],
            "count": TEXTS,
            "laws": {
                "params": {"allowed_token_ids": ALLOWED, "max_tokens": 6, "ignore_eos": True},
                "extra": {
                    "qr_temperature_strategy": "fixed",
                    "qr_fixed_temperature": TEMPERATURE,
                    "qr_top_k": TOP_K,
                },
            },
            "requests": REQUESTS,
            "bypassed": BYPASSED,
            "engine": {
                **tsd.options,
                "max_num_seqs": 24,
                "max_num_batched_tokens": 128,
                "enable_chunked_prefill": True,
                "enable_prefix_caching": False,
                "block_size": 32,
                "num_gpu_blocks_override": 28,
                "disable_log_stats": False,
            },
        }
        environment = tsd.environment(
            "canonical",
            QR_TSD_VERIFIER=verifier,
            QR_TSD_UNIT=UNITS[verifier],
            QR_ENTROPY_SOURCE_TYPE="seeded",
            PYTHONPATH=str(site.directory),
        )
        self.result = engine.result(tsd.script(SERVE), task, environment)
        self.lines: list[dict[str, Any]] = engine.lines()
        self.laws = Laws(self.result["logits"], self._quantised(tsd, proposal))

    @staticmethod
    def _quantised(tsd: Any, proposal: dict[int, float]) -> dict[int, float]:
        """The law of the payload itself, fitted to the requests."""
        from qr_sampler_tsd.fitting import RequestShape, fit
        from qr_sampler_tsd.proposers import load_proposer

        proposer = load_proposer(tsd.proposer)
        shape = RequestShape(temperature=TEMPERATURE, top_k=TOP_K, allowed=np.array(ALLOWED))
        psi = fit(proposer.psi(proposer.start([300])), shape, proposer.temperature)
        assert psi is not None
        # The worst of the four is never proposed, and weighs more than at the table's temperature.
        assert psi.ids.tolist() == [300, 302, 303]
        law = psi.law()
        return {token: float(law.prob_of(token)) for token in proposal}

    def tokens(self, key: str) -> list[dict[str, Any]]:
        return [
            line for line in self.lines if line["kind"] == "token" and line["request_key"] == key
        ]

    def sequences(self, key: str) -> list[list[dict[str, Any]]]:
        found: dict[str, list[dict[str, Any]]] = defaultdict(list)
        for line in self.tokens(key):
            assert line["position"] == len(found[line["sequence"]]), "records are not in order"
            found[line["sequence"]].append(line)
        return list(found.values())


@pytest.mark.parametrize("verifier", ["token", "block"])
def test_the_text_follows_the_target(
    offline_engine: Callable[[str], Any], site: Any, tsd: Any, verifier: str
) -> None:
    run = Run(offline_engine("v1"), site, tsd, verifier)
    assert_law(run)
    assert_acceptance(run, verifier)
    assert_one_source(run)
    assert_emitted_is_recorded(run)
    assert_accounted(run)
    assert_roles(run)
    assert_unit(run, verifier)


def assert_law(run: Run) -> None:
    """The joint law of four tokens: one without drafts and a whole block."""
    law = {text: p for text, p in run.laws.joint(4).items() if p > 0}
    counts = Counter(tuple(text[:4]) for text in run.result["texts"])
    assert set(counts) <= set(law), "a token that was truncated"
    expected = np.array([p * TEXTS for p in law.values()])
    observed = np.array([counts[text] for text in law])
    common = expected >= 5
    groups = [np.append(values[common], values[~common].sum()) for values in (observed, expected)]
    statistic = float(((groups[0] - groups[1]) ** 2 / groups[1]).sum())
    freedom = int(common.sum())
    critical = float(stats.chi2.isf(RATE, freedom))
    assert statistic < critical
    # Power: what comes of accepted drafts without correction would not pass.
    wrong = uncorrected(run.laws, law)
    bias = np.array([wrong[text] * TEXTS for text in law]) - expected
    shift = np.append(bias[common], bias[~common].sum())
    centre = float((shift**2 / groups[1]).sum())
    assert stats.ncx2.cdf(critical, freedom, centre) < RATE


def uncorrected(laws: Laws, texts: dict[tuple[int, ...], float]) -> dict[tuple[int, ...], float]:
    """The law of a verifier that draws corrections from p instead of the residual."""

    def step(text: tuple[int, ...], token: int) -> float:
        p, q = laws.p(text), laws.q
        overlap = {t: min(p[t], q[t]) for t in ALLOWED}
        return overlap[token] + (1.0 - sum(overlap.values())) * p[token]

    return {
        text: laws.p(())[text[0]] * math.prod(step(text[:n], text[n]) for n in range(1, 4))
        for text in texts
    }


def assert_acceptance(run: Run, verifier: str) -> None:
    """The number of drafts of the first block that stand, against enumeration."""
    stands = []
    for tokens in run.sequences("law"):
        block = [line["outcome"] for line in tokens[1:]]
        count = next(n for n, outcome in enumerate(block) if outcome != "accepted")
        stands.append(min(count, DRAFTS))
    mean, variance = run.laws.accepted(verifier)
    limit = float(stats.norm.isf(RATE / 2)) * math.sqrt(variance / len(stands))
    assert len(stands) == TEXTS
    assert abs(np.mean(stands) - mean) < limit
    # The two rules are told apart, and from one-hot drafts, which stand with sum p q.
    other, _ = run.laws.accepted("block" if verifier == "token" else "token")
    assert (mean > other) is (verifier == "block")
    first = [tokens[1]["outcome"] == "accepted" for tokens in run.sequences("law")]
    if verifier == "token":
        overlap = sum(
            chance * min(run.laws.p((token,))[t], run.laws.q[t])
            for token, chance in run.laws.p(()).items()
            if chance > 0
            for t in ALLOWED
        )
        deviation = math.sqrt(overlap * (1 - overlap) / TEXTS)
        assert abs(np.mean(first) - overlap) < float(stats.norm.isf(RATE / 2)) * deviation


def assert_one_source(run: Run) -> None:
    """The same bytes make the same text.

    Names of sequences, and what blinds lines of the ledger, are all that comes from elsewhere.
    """
    one, same, other = run.result["again"]
    assert one == same != other
    assert set(run.result["readers"]) <= {"qr_sampler.records.chain", "uuid"}


def assert_emitted_is_recorded(run: Run) -> None:
    assert run.result["preemptions"] > 0, "nothing was preempted"
    assert run.result["aborted"] == ["aborted"]
    served = run.result["served"]
    assert served["undecidable"][0][0] == [0, 0, 0, 0, 301]
    undecided = [line for line in run.lines if line["kind"] == "undecided"]
    assert [(line["position"], line["token_id"]) for line in undecided] == [
        (position, 0) for position in range(4)
    ]
    assert [line["position"] for line in run.tokens("undecidable")] == [4]
    for key in (REQUESTS.keys() | BYPASSED.keys()) - {"undecidable"}:
        emitted = sorted(tokens for tokens, _ in served[key])
        recorded = sorted([line["token_id"] for line in own] for own in run.sequences(key))
        assert recorded == (emitted if key != "left to vllm" else []), key
    ((grammar, text),) = served["grammar"]
    assert re.fullmatch("(a|b|cd){1,12}", text)
    assert len(grammar) > 1
    ((late, _),) = served["late stop"]
    assert 301 not in late[:30]
    assert len(served["model length"][0][0]) == 26
    assert len(served["left to vllm"][0][0]) == 60
    assert len(served["four samples"]) == 4


def assert_accounted(run: Run) -> None:
    """Bytes drawn are bytes in records and bytes in discards."""
    spent = [line for line in run.lines if line["kind"] in ("token", "discard")]
    assert sum(line["block_bytes"] for line in spent) == run.result["drawn"]
    reasons = {line["reason"] for line in spent if line["kind"] == "discard"}
    assert {"rejected_draft", "not_needed", "aborted"} <= reasons
    assert reasons <= {"rejected_draft", "not_needed", "aborted", "not_verified", "after_stop"}


def assert_roles(run: Run) -> None:
    deciding = {"accepted": "proposal", "corrected": "residual", "bonus": "bonus"}
    seen = set()
    for line in (line for line in run.lines if line["kind"] == "token"):
        seen.add(line["outcome"])
        assert line["role"] == deciding[line["outcome"]]
        assert line["jit"] is (line["outcome"] != "accepted")
        assert (line["t_request_ns"] > line["t_logits_ns"]) is line["jit"]
        assert line["block_bytes"] == sum(used["bytes"] for used in line["uniforms"])
        assert line["u"] in [used["u"] for used in line["uniforms"] if used["role"] == line["role"]]
        for used in line["uniforms"]:
            assert used["jit"] is (used["role"] != "proposal")
            assert (used["t_request_ns"] > line["t_logits_ns"]) is used["jit"]
    assert seen == set(deciding)


def assert_unit(run: Run, verifier: str) -> None:
    """The genesis names it with its figures, and each draft has its log q and its time."""
    facts = run.lines[0]["settings"]["tsd"]
    assert facts["unit"] == {"token": "SimTSU", "block": "PBitTreeTSU(dac_bits=None)"}[verifier]
    assert facts["gate"]["largest_total_variation"] < facts["gate"]["its_bound"]
    # Three tokens and the tail are two bits, and one number for the token of the tail.
    sizes = {8} if verifier == "token" else {16, 24}
    for line in (line for line in run.tokens("law") if line["outcome"] == "accepted"):
        (used,) = [used for used in line["uniforms"] if used["role"] == "proposal"]
        assert used["bytes"] in sizes
        assert used["log_q"] == pytest.approx(math.log(run.laws.q[line["token_id"]]), abs=1e-9)
        assert used["unit_ns"] > 0
