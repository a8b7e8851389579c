# SPDX-License-Identifier: Apache-2.0
"""Penalties and constraints of a request have their documented effect on the chosen tokens.

Every case is asked of one engine twice: once left to vLLM, which reports the distribution that its
own sampler would draw from after each beginning of an output, and once decided by the plugin.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Callable, Iterable
from itertools import pairwise, permutations
from pathlib import Path
from typing import Any, NamedTuple

import pytest

tokenizers = pytest.importorskip("tokenizers", reason="vLLM, which the vllm session installs")

SERVE = """
    import math
    from vllm import SamplingParams
    from vllm.sampling_params import StructuredOutputsParams
    import qr_sampler_vllm

    llm = engine(max_num_seqs=128, max_logprobs=-1, logprobs_mode="processed_logprobs")

    def params(case, **further):
        wishes = {"detokenize": False, **case["params"]}
        if "structured_outputs" in wishes:
            grammar = StructuredOutputsParams(**wishes.pop("structured_outputs"))
            wishes["structured_outputs"] = grammar
        if "logit_bias" in wishes:
            biases = wishes["logit_bias"].items()
            wishes["logit_bias"] = {int(token): bias for token, bias in biases}
        return SamplingParams(**wishes, **further)

    def distributions(samples):
        found = {}
        for sample in samples:
            for position, choices in enumerate(sample.logprobs):
                beginning = " ".join(map(str, sample.token_ids[:position]))
                found[beginning] = {
                    token: choice.logprob
                    for token, choice in choices.items()
                    if choice.logprob > -math.inf
                }
        return found

    ours = []
    for key, case in task["cases"].items():
        extra = {"qr_request_key": key}
        decided = params(case, temperature=task["temperature"], extra_args=extra)
        ours += [decided] * case["samples"]
    references = [
        params(case, **case["reference"], temperature=1.0, seed=1, extra_args={"qr_bypass": 1})
        for case in task["cases"].values()
    ]
    asked = ours + references
    prompt = {"prompt_token_ids": task["prompt"]}
    answers = llm.generate([prompt] * len(asked), asked, use_tqdm=False)
    qr_sampler_vllm.flush_records()
    cases, decided = {}, iter(answers)
    for (key, case), reference in zip(task["cases"].items(), answers[len(ours) :], strict=True):
        outputs = [next(decided).outputs[0] for _ in range(case["samples"])]
        cases[key] = {
            "outputs": [list(output.token_ids) for output in outputs],
            "distributions": distributions(reference.outputs),
        }
    overlapping = llm.llm_engine.vllm_config.scheduler_config.async_scheduling
    result({"cases": cases, "overlapping": bool(overlapping)})
"""

SEEDED = {
    "QR_ENTROPY_SOURCE_TYPE": "mock_uniform",
    "QR_MOCK_UNIFORM_SEED": "20",
    "QR_SIGNAL_AMPLIFIER_TYPE": "uniform53",
    "QR_SAMPLE_COUNT": "7",
    "QR_TEMPERATURE_STRATEGY": "fixed",
    "QR_FIXED_TEMPERATURE": "1.0",
}
SAMPLES = 50
SAMPLES_OF_SLIGHT_EFFECT = 100
REFERENCE_SAMPLES = 24
"""Enough to come by most beginnings."""
END_OF_TEXT = 0
MIN_TOKENS = 2
CHOICES = ["e", "tea", "toe", "eat"]
REGEX = "[et]{2,3}"

LOG_CERTAIN = math.log(1e9)
"""A deviation is certain when chance makes one as large less than once in 1e9 times."""
RELATIVE_ERROR = 1e-4
"""Float32 logits of one prompt differ a little between batches of different sizes."""


class Letters(NamedTuple):
    """Two tokens that stay apart when their letters meet."""

    first: int
    second: int


def spelled(tokenizer: Any, text: str) -> list[int]:
    ids: list[int] = tokenizer.encode(text, add_special_tokens=False).ids
    return ids


class Alphabet:
    """The tokens that the cases are about."""

    def __init__(self, model: Path) -> None:
        self.tokenizer = tokenizers.Tokenizer.from_file(str(model / "tokenizer.json"))
        self.words = next(
            pair
            for pair in permutations("etaonisr", 2)
            if len(spelled(self.tokenizer, "".join(pair))) == 2
        )
        self.few = Letters(*(spelled(self.tokenizer, letter)[0] for letter in self.words))
        # A repetition penalty finds the first letter in the prompt, but not the second.
        self.prompt = [*spelled(self.tokenizer, "Light is"), self.few.first, self.few.first]

    def cases(self) -> dict[str, dict[str, Any]]:
        """The sampling parameters of every case."""
        few, pair = self.few, "".join(self.words)
        # Logits well above 0 give a repetition penalty something to scale.
        bias = {few.first: 4.5, few.second: 5.5}
        among = {"allowed_token_ids": list(few), "logit_bias": bias, "max_tokens": 3}
        ending = {
            "allowed_token_ids": [*few, END_OF_TEXT],
            "logit_bias": {**bias, END_OF_TEXT: 8.0},
            "max_tokens": 3,
        }
        attracted = {"logit_bias": dict.fromkeys(few, 8.0), "max_tokens": 1}
        return {
            "allowed tokens": among,
            "repetition penalty": {**among, "repetition_penalty": 1.5},
            "repetition reward": {**among, "repetition_penalty": 0.5},
            "frequency penalty": {**among, "frequency_penalty": 2.0},
            "presence penalty": {**among, "presence_penalty": 2.0},
            "rewards": {**among, "frequency_penalty": -1.5, "presence_penalty": -2.0},
            "bad word": {**among, "bad_words": [self.words[0]]},
            "bad pair": {**among, "bad_words": [pair]},
            "together": {
                **among,
                "repetition_penalty": 1.3,
                "frequency_penalty": 1.2,
                "presence_penalty": -0.5,
                "bad_words": [pair],
            },
            "any ending": ending,
            "least length": {**ending, "min_tokens": MIN_TOKENS},
            "whole vocabulary": {"max_tokens": 1},
            "logit bias": {"logit_bias": {few.first: -100.0, few.second: 10.0}, "max_tokens": 1},
            "attracted": attracted,
            "attracted and penalised": {**attracted, "repetition_penalty": 1.5},
            "choice": {"max_tokens": 4, "structured_outputs": {"choice": CHOICES}},
            "regex": {"max_tokens": 4, "structured_outputs": {"regex": REGEX}},
        }


BASELINES = {
    "repetition penalty": "allowed tokens",
    "repetition reward": "allowed tokens",
    "frequency penalty": "allowed tokens",
    "presence penalty": "allowed tokens",
    "rewards": "allowed tokens",
    "bad word": "allowed tokens",
    "bad pair": "allowed tokens",
    "together": "allowed tokens",
    "least length": "any ending",
    "attracted and penalised": "attracted",
    "attracted": "whole vocabulary",
    "allowed tokens": "whole vocabulary",
    "logit bias": "whole vocabulary",
    "choice": "whole vocabulary",
    "regex": "whole vocabulary",
}
"""The same request without the constraint that a case is about."""
CASES = [*BASELINES, "any ending", "whole vocabulary"]
SLIGHT = {
    "repetition penalty",
    "presence penalty",
    "rewards",
    "bad pair",
    "attracted",
    "attracted and penalised",
}
"""Cases that take many samples to be told from their baselines."""


def samples(case: str) -> int:
    """The number of sequences that the plugin decides."""
    return SAMPLES_OF_SLIGHT_EFFECT if case in SLIGHT else SAMPLES


Beginning = tuple[int, ...]
Distributions = dict[Beginning, dict[int, float]]


class Choice(NamedTuple):
    """A token that the plugin chose."""

    beginning: Beginning
    token_id: int
    probability: float


class Served:
    """What became of the cases under one engine."""

    def __init__(self, engine: Any, *, overlapping: bool, temperature: float) -> None:
        self.alphabet = Alphabet(engine.model)
        cases = self.alphabet.cases()
        task = {
            "prompt": self.alphabet.prompt,
            "overlapping": overlapping,
            "temperature": temperature,
            "cases": {key: self._asked(key, wishes) for key, wishes in cases.items()},
        }
        result = engine.result(SERVE, task, SEEDED)
        assert result["overlapping"] is overlapping
        self._cases = result["cases"]
        self._lines = [line for line in engine.lines() if line["kind"] == "token"]

    def _asked(self, case: str, wishes: dict[str, Any]) -> dict[str, Any]:
        # Few tokens are possible where there are several positions, so most beginnings are seen.
        reference = {"n": REFERENCE_SAMPLES, "logprobs": 12}
        if wishes["max_tokens"] == 1:
            reference = {"n": 1, "logprobs": -1}
        return {"params": wishes, "samples": samples(case), "reference": reference}

    def outputs(self, case: str) -> list[list[int]]:
        """The emitted tokens of every sequence that the plugin decided."""
        outputs: list[list[int]] = self._cases[case]["outputs"]
        return outputs

    def distributions(self, case: str) -> Distributions:
        """What vLLM's own sampler would draw from, by beginning."""
        return {
            tuple(map(int, beginning.split())): {
                int(token): math.exp(logprob) for token, logprob in logprobs.items()
            }
            for beginning, logprobs in self._cases[case]["distributions"].items()
        }

    def choices(self, case: str) -> list[Choice]:
        """The recorded choices of the plugin."""
        beginnings: dict[str, Beginning] = {}
        found = []
        for line in self._lines:
            if line["request_key"] != case:
                continue
            beginning = beginnings.get(line["sequence"], ())
            found.append(Choice(beginning, line["token_id"], line["probability"]))
            beginnings[line["sequence"]] = (*beginning, line["token_id"])
        return found

    def comparable(
        self, case: str, distributions: Distributions
    ) -> Iterable[tuple[Choice, dict[int, float]]]:
        """Yields the choices after beginnings whose distribution is known, and that."""
        for choice in self.choices(case):
            if choice.beginning in distributions:
                yield choice, distributions[choice.beginning]


@pytest.fixture(scope="module", params=["v1 in turn", "v2 overlapping"])
def served(request: pytest.FixtureRequest, offline_engine: Callable[[str], Any]) -> Served:
    """One engine for each of these ways to run.

    Requests that are greedy in vLLM's eyes spare Model Runner V2 the noise for its own choice,
    which takes most of the time without a GPU.
    """
    runner, _, steps = request.param.partition(" ")
    in_turn = steps == "in turn"
    return Served(
        offline_engine(runner), overlapping=not in_turn, temperature=1.0 if in_turn else 0.0
    )


def grouped(law: dict[int, float]) -> tuple[dict[int, int], list[float]]:
    """Puts tokens together, the most probable first, until a group has a tenth of the mass.

    Returns:
        The group of each token, and the probability of each group.
    """
    groups: dict[int, int] = {}
    masses: list[float] = []
    for token, probability in sorted(law.items(), key=lambda item: -item[1]):
        if not masses or masses[-1] >= 0.1:
            masses.append(0.0)
        masses[-1] += probability
        groups[token] = len(masses) - 1
    return groups, masses


def log_evidence(pairs: Iterable[tuple[Choice, dict[int, float]]]) -> float:
    """Returns how much better another law than the given ones explains the choices.

    The other law learns from the choices: it expects a group of tokens in proportion to how often
    it has come after that beginning so far, plus one half, as Krichevsky and Trofimov have it. The
    logarithm of its likelihood ratio is half the statistic of a G-test, less what learning costs.
    If the given laws are true, the ratio has the mean 1, so by Markov's inequality it exceeds r
    with a probability of at most 1/r, for samples of any size.
    """
    total = 0.0
    counts: dict[Beginning, Counter[int]] = {}
    for choice, law in pairs:
        groups, masses = grouped(law)
        if choice.token_id not in groups:
            return math.inf
        group = groups[choice.token_id]
        seen = counts.setdefault(choice.beginning, Counter())
        expected = (seen[group] + 0.5) / (sum(seen.values()) + 0.5 * len(masses))
        total += math.log(expected / masses[group])
        seen[group] += 1
    return total


@pytest.mark.parametrize("case", CASES)
def test_chosen_tokens_have_the_probability_that_vllm_gives_them(served: Served, case: str) -> None:
    pairs = list(served.comparable(case, served.distributions(case)))
    assert len(pairs) >= 0.8 * len(served.choices(case)) >= 0.8 * samples(case)
    for choice, law in pairs:
        expected = law.get(choice.token_id, 0.0)
        assert choice.probability == pytest.approx(expected, rel=RELATIVE_ERROR), choice


@pytest.mark.parametrize("case", CASES)
def test_tokens_are_as_frequent_as_vllm_says(served: Served, case: str) -> None:
    assert log_evidence(served.comparable(case, served.distributions(case))) < LOG_CERTAIN


@pytest.mark.parametrize("case", BASELINES)
def test_a_constraint_without_effect_would_be_noticed(served: Served, case: str) -> None:
    """By both of the tests above."""
    without = served.distributions(BASELINES[case])
    pairs = list(served.comparable(case, without))
    assert log_evidence(pairs) > LOG_CERTAIN
    deviations = [abs(choice.probability - law.get(choice.token_id, 0.0)) for choice, law in pairs]
    assert max(deviations) > 100 * RELATIVE_ERROR


@pytest.mark.parametrize("case", CASES)
def test_the_records_are_of_the_emitted_tokens(served: Served, case: str) -> None:
    emitted = [tuple(output) for output in served.outputs(case)]
    recorded = [(*choice.beginning, choice.token_id) for choice in served.choices(case)]
    whole = Counter(recorded) - Counter(choice.beginning for choice in served.choices(case))
    assert whole == Counter(emitted)
    assert len(emitted) == samples(case)


def chosen(served: Served, case: str) -> set[int]:
    return {token for output in served.outputs(case) for token in output}


def test_only_allowed_tokens_are_chosen(served: Served) -> None:
    few = set(served.alphabet.few)
    assert chosen(served, "allowed tokens") == few
    assert not chosen(served, "whole vocabulary") <= few


def test_bad_words_are_never_completed(served: Served) -> None:
    first, second = served.alphabet.few
    assert first in chosen(served, "allowed tokens")
    assert first not in chosen(served, "bad word")

    def holding_pair(case: str) -> int:
        pairs = [pair for output in served.outputs(case) for pair in pairwise(output)]
        return pairs.count((first, second))

    assert holding_pair("allowed tokens") > 0
    assert holding_pair("bad pair") == 0
    assert holding_pair("together") == 0


def test_a_bias_of_minus_100_excludes_and_others_attract(served: Served) -> None:
    first, second = served.alphabet.few
    biased = [output[0] for output in served.outputs("logit bias")]
    free = [output[0] for output in served.outputs("whole vocabulary")]
    assert first not in biased
    assert biased.count(second) > free.count(second)


def test_no_sequence_ends_before_its_least_length(served: Served) -> None:
    def endings(case: str) -> set[int]:
        return {
            output.index(END_OF_TEXT) for output in served.outputs(case) if END_OF_TEXT in output
        }

    assert min(endings("any ending")) < MIN_TOKENS
    assert endings("least length") == {MIN_TOKENS}


def test_grammars_are_obeyed(served: Served) -> None:
    def texts(case: str) -> set[str]:
        return {served.alphabet.tokenizer.decode(output) for output in served.outputs(case)}

    assert texts("choice") <= set(CHOICES)
    assert len(texts("choice")) > 1
    assert all(re.fullmatch(REGEX, text) for text in texts("regex"))
    assert len(texts("regex")) > 1
