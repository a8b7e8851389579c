# SPDX-License-Identifier: Apache-2.0
"""Transformers' own sampling parameters: refused beside ours, or followed, wherever they are set.

The oracle is Transformers itself: its processors make the distribution, and the token is the one at
which the cumulative sum of its probabilities, in our order, exceeds the recorded u.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from qr_sampler import ConfigError

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

REFUSED = [
    ({"do_sample": True}, r"top_k=50: .*do_sample=False.* qr_top_k=50 "),
    ({"do_sample": True, "top_k": 0, "top_p": 0.9}, r"top_p=0.9: .* qr_top_p=0.9 "),
    ({"do_sample": True, "top_k": 0, "temperature": 0.7}, "qr_fixed_temperature=0.7 "),
    ({"do_sample": True, "top_k": 0, "min_p": 0.1}, "qr_min_p=0.1 "),
    ({"do_sample": True, "top_k": 0, "typical_p": 0.5}, "typical_p=0.5: .*no such filter"),
    ({"do_sample": True, "top_k": 0, "epsilon_cutoff": 1e-4}, "epsilon_cutoff=0.0001: "),
    ({"do_sample": True, "top_k": 0, "eta_cutoff": 0.5}, "eta_cutoff=0.5: "),
    ({"do_sample": True, "top_k": 0, "top_h": 0.5}, "top_h=0.5: "),
    ({"num_beams": 3}, "num_beams=3: beam search .*pass num_beams=1"),
    ({"num_beams": 3, "do_sample": True, "top_k": 0}, "num_beams=3: "),
    ({"prompt_lookup_num_tokens": 2}, "prompt_lookup_num_tokens=2: assisted decoding"),
    ({"penalty_alpha": 0.6, "top_k": 4}, "contrastive search|top_k=4"),
    ({"dola_layers": "low"}, "dola_layers='low': DoLa"),
]


@pytest.mark.parametrize(("arguments", "message"), REFUSED)
def test_what_could_not_be_exact_is_refused(
    run: Any, prompts: Any, arguments: dict[str, Any], message: str
) -> None:
    own = run()
    ids, _ = prompts(4)
    with pytest.raises(ConfigError, match=message):
        own.generate(ids, max_new_tokens=2, **arguments)
    with pytest.raises(ConfigError, match=message):
        own.model.generate(
            ids, max_new_tokens=2, custom_generate=own.sampler.custom_generate(), **arguments
        )
    assert own.source.bytes_drawn == 0


@pytest.mark.parametrize(("arguments", "message"), REFUSED[:11])
def test_a_processor_refuses_the_same(
    run: Any, prompts: Any, arguments: dict[str, Any], message: str
) -> None:
    own = run()
    with pytest.raises(ConfigError, match=message):
        own.model.generate(
            prompts(4)[0], max_new_tokens=2, logits_processor=[own.sampler.processor()], **arguments
        )
    assert own.source.bytes_drawn == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"top_p": 0.9}, r"top_p=0.9: .*qr_top_p=0.9"),
        ({"assistant_model": object()}, "assistant_model: assisted decoding"),
        ({"custom_generate": print}, "custom_generate: "),
        ({"cache_implementation": "paged"}, "cache_implementation='paged': continuous batching"),
        ({"token_healing": True}, r"token_healing=True: .*model.heal_tokens"),
    ],
)
def test_arguments_that_cannot_be_served_are_refused(
    run: Any, prompts: Any, arguments: dict[str, Any], message: str
) -> None:
    """Transformers would ignore a parameter of sampling without do_sample=True."""
    own = run()
    with pytest.raises(ConfigError, match=message):
        own.generate(prompts(4)[0], max_new_tokens=2, **arguments)
    assert own.source.bytes_drawn == 0


@pytest.fixture
def shipped(model: Any) -> Any:
    """The model with sampling parameters in its ``generation_config``, as many have them."""
    before = model.generation_config
    model.generation_config = transformers.GenerationConfig(
        eos_token_id=0, do_sample=True, temperature=0.7, top_k=20, top_p=0.8, min_p=0.01
    )
    yield model
    model.generation_config = before


def test_parameters_that_a_model_ships_are_refused(shipped: Any, run: Any, prompts: Any) -> None:
    with pytest.raises(ConfigError, match=r"temperature=0.7: .*the model's generation_config"):
        run().generate(prompts(4)[0], max_new_tokens=2)


def test_they_are_switched_off_by_do_sample(shipped: Any, run: Any, prompts: Any) -> None:
    own = run()
    output = own.generate(prompts(4)[0], max_new_tokens=6, do_sample=False)
    own.check(output[:, 4:].tolist())
    assert {line["temperature"] for line in own.kind("token")} == {
        own.sampler.sampler.session.settings.sampling.fixed_temperature
    }


def test_requests_may_follow_them(shipped: Any, run: Any, prompts: Any) -> None:
    own = run()
    ids, _ = prompts(4, 4)
    output = own.generate(ids, max_new_tokens=12, qr_follow_request=1)
    own.check(output[:, 4:].tolist())
    assert {line["temperature"] for line in own.kind("token")} == {0.7}
    assert max(line["rank"] for line in own.kind("token")) < 20
    options = own.sequences()[0]["options"]
    assert [options[name] for name in ("top_k", "top_p", "min_p")] == [20, 0.8, 0.01]


def test_a_batch_follows_them_as_a_whole(shipped: Any, run: Any, prompts: Any) -> None:
    with pytest.raises(ConfigError, match="qr_follow_request: some requests of a batch"):
        run().generate(prompts(4, 4)[0], max_new_tokens=2, options=[{"follow_request": 1}, {}])


def test_requests_that_follow_greedy_decoding_are_left_to_it(run: Any, prompts: Any) -> None:
    own = run(follow_request=True)
    ids, _ = prompts(4, 4)
    output = own.generate(ids, max_new_tokens=5, do_sample=False)
    greedy = own.model.generate(ids, max_new_tokens=5, do_sample=False, pad_token_id=0)
    assert output.tolist() == greedy.tolist()
    own.check([])


def test_requests_are_left_to_transformers(run: Any, prompts: Any) -> None:
    own = run()
    ids, _ = prompts(4, 4)
    options = [{"bypass": 1}, {"request_key": "ours"}]
    output = own.generate(ids, max_new_tokens=5, options=options)
    greedy = own.model.generate(ids[:1], max_new_tokens=5, do_sample=False, pad_token_id=0)
    assert output[:1].tolist() == greedy.tolist()
    own.check(output[1:, 4:].tolist())


def test_rows_of_both_kinds_have_no_parameters_of_transformers(run: Any, prompts: Any) -> None:
    own = run()
    options = [{"bypass": 1}, {"bypass": 0}]
    with pytest.raises(ConfigError, match="generate them in separate calls"):
        own.generate(
            prompts(4, 4)[0], max_new_tokens=5, do_sample=True, options=options, qr_follow_request=1
        )


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        ({}, []),
        ({"top_p": 0.9}, [transformers.TopPLogitsWarper(0.9)]),
        ({"top_k": 40}, [transformers.TopKLogitsWarper(40)]),
        (
            {"fixed_temperature": 0.6, "top_k": 30},
            [transformers.TemperatureLogitsWarper(0.6), transformers.TopKLogitsWarper(30)],
        ),
        ({"min_p": 0.05}, [transformers.MinPLogitsWarper(0.05)]),
    ],
)
@pytest.mark.parametrize("do_sample", [False, True])
def test_tokens_are_those_of_transformers_own_distribution(
    run: Any, prompts: Any, ours: dict[str, Any], theirs: list[Any], do_sample: bool
) -> None:
    own = run()
    ids, _ = prompts(4, 4)
    common = {"temperature_strategy": "fixed", "fixed_temperature": 1.0, "top_p": 1.0, "top_k": 0}
    sampling = {"do_sample": True, "top_k": 0} if do_sample else {}
    output = own.generate(
        ids,
        max_new_tokens=10,
        options=[{**name, **common, **ours} for name in own.named(2)],
        return_dict_in_generate=True,
        output_logits=True,
        **sampling,
    )
    rows = output.sequences[:, 4:]
    own.check(rows.tolist())
    for line in own.kind("token"):
        row = int(line["request_key"].rpartition(".")[2])
        scores = output.logits[line["position"]][row : row + 1].double()
        for processor in theirs:
            scores = processor(None, scores)
        probability = torch.softmax(scores, dim=-1)[0].numpy()
        order = np.lexsort((np.arange(len(probability)), -probability))
        place = int(np.searchsorted(np.cumsum(probability[order]), line["u"], side="right"))
        assert order[place] == line["token_id"]
        assert line["probability"] == pytest.approx(probability[line["token_id"]], rel=1e-5)


def test_what_changes_the_logits_before_is_legal_and_recorded(run: Any, prompts: Any) -> None:
    own = run()

    class Ban(transformers.LogitsProcessor):
        """Allows only the tokens from 1,000 on."""

        def __call__(self, input_ids: Any, scores: Any) -> Any:
            scores[:, :1000] = -float("inf")
            return scores

    output = own.generate(
        prompts(4)[0],
        max_new_tokens=8,
        logits_processor=[Ban()],
        repetition_penalty=1.3,
        min_new_tokens=3,
        suppress_tokens=[1001, 1002],
        bad_words_ids=[[1003]],
        sequence_bias={(1004,): -1.0},
        watermarking_config=transformers.WatermarkingConfig(bias=0.5, context_width=2),
    )
    own.check(output[:, 4:].tolist())
    assert output[:, 4:].min() >= 1000
    (sequence,) = own.kind("sequence")
    fields = sequence["fields"]
    assert fields["repetition_penalty"] == 1.3
    assert fields["min_tokens"] == 3
    assert fields["suppress_tokens"] == [1001, 1002]
    assert fields["bad_words"] == [[1003]]
    assert len(fields["sequence_bias"]["sha256"]) == 64
    assert fields["logits_processors"][-2:] == ["Ban", "WatermarkLogitsProcessor"]


def test_the_last_logits_are_those_that_decide(run: Any, prompts: Any) -> None:
    """A processor that leaves one token decides it, whatever the model says."""
    own = run()

    class Only(transformers.LogitsProcessor):
        """Leaves one token."""

        def __call__(self, input_ids: Any, scores: Any) -> Any:
            forced = torch.full_like(scores, -float("inf"))
            forced[:, 77] = 0.0
            return forced

    output = own.generate(prompts(4)[0], max_new_tokens=3, logits_processor=[Only()])
    assert output[:, 4:].tolist() == [[77, 77, 77]]
    assert [line["probability"] for line in own.kind("token")] == [1.0] * 3


def test_logits_of_a_processor_stay_its_own(run: Any, prompts: Any) -> None:
    """One that returns the same tensor in every step would find a forced row in it."""
    own = run()
    logits = torch.zeros(1, 2048)

    class Constant(transformers.LogitsProcessor):
        """Makes all tokens equally probable."""

        def __call__(self, input_ids: Any, scores: Any) -> Any:
            return logits

    output = own.generate(prompts(4)[0], max_new_tokens=6, logits_processor=[Constant()])
    assert len(set(output[0, 4:].tolist())) > 1
    own.model.generate(
        prompts(4)[0],
        max_new_tokens=2,
        pad_token_id=0,
        logits_processor=[Constant(), own.sampler.processor()],
    )
    assert not logits.any()


@pytest.mark.parametrize("options", [{"qr_follow_request": 1}, {"qr_bypass": 1}])
def test_greedy_requests_have_one_text(run: Any, prompts: Any, options: dict[str, Any]) -> None:
    """Transformers refuses several texts that would be the same; nothing is sampled instead."""
    own = run()
    with pytest.raises(ValueError, match="num_return_sequences"):
        own.generate(prompts(4)[0], max_new_tokens=3, num_return_sequences=2, **options)


def test_requests_that_are_left_to_transformers_have_its_parameters(run: Any, prompts: Any) -> None:
    own = run()
    arguments = {"max_new_tokens": 5, "do_sample": True, "top_p": 0.9, "temperature": 1.3}
    torch.manual_seed(3)
    output = own.generate(prompts(4)[0], qr_bypass=1, **arguments)
    torch.manual_seed(3)
    expected = own.model.generate(prompts(4)[0], pad_token_id=0, **arguments)
    assert output.tolist() == expected.tolist()
    with pytest.raises(ConfigError, match=r"temperature=1\.3"):
        own.generate(prompts(4, 4)[0], options=[{"bypass": 1}, {}], **arguments)
    assert own.source.bytes_drawn == 0


def test_numbers_of_numpy_and_torch_are_recorded(run: Any, prompts: Any) -> None:
    own = run()
    output = own.generate(
        prompts(4)[0],
        max_new_tokens=3,
        repetition_penalty=np.float64(1.25),
        suppress_tokens=torch.tensor([3, 4]),
        begin_suppress_tokens=[np.int64(5)],
        forced_eos_token_id=torch.tensor([0]),
    )
    own.check(output[:, 4:].tolist())
    fields = own.sequences()[0]["fields"]
    assert fields["repetition_penalty"] == 1.25
    assert fields["suppress_tokens"] == [3, 4]
    assert fields["begin_suppress_tokens"] == [5]
    assert fields["forced_eos_token_id"] == [0]


def test_a_parameter_that_acts_twice_is_not_followed(run: Any, prompts: Any) -> None:
    own = run()
    cold = [transformers.TemperatureLogitsWarper(0.5) for _ in range(2)]
    arguments = {"do_sample": True, "top_k": 0, "logits_processor": cold}
    with pytest.raises(ConfigError, match=r"temperature=0\.5"):
        own.generate(prompts(4)[0], max_new_tokens=2, qr_follow_request=1, **arguments)
    assert own.source.bytes_drawn == 0
