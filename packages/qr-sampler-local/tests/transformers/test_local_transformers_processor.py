# SPDX-License-Identifier: Apache-2.0
"""A logits processor alone: it sees less than a callable does, and keeps straight what it sees."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from qr_sampler import ConfigError

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

END_TOKEN = 0


def generate(own: Any, processors: list[Any], ids: Any, mask: Any = None, **arguments: Any) -> Any:
    """Has the model itself generate with *processors*."""
    mask = torch.ones_like(ids) if mask is None else mask
    return own.model.generate(
        ids,
        attention_mask=mask,
        logits_processor=processors,
        **{"pad_token_id": 0, "max_new_tokens": 5, **arguments},
    )


def test_records_are_those_of_the_output(run: Any, prompts: Any) -> None:
    own = run()
    ids, mask = prompts(3, 6)
    output = generate(own, [own.sampler.processor(own.named(2))], ids, mask)
    own.check(output[:, 6:].tolist())
    assert [line["prompt_tokens"] for line in own.sequences()] == [3, 6]
    assert [line["stop"]["max_tokens"] for line in own.sequences()] == [5, 5]


def test_rows_that_have_ended_draw_nothing(run: Any, prompts: Any) -> None:
    own = run()
    ids, _ = prompts(3, 3, 3)
    ends = list(range(0, 2048, 6))
    output = generate(
        own, [own.sampler.processor(own.named(3))], ids, max_new_tokens=20, eos_token_id=ends
    )
    texts = own.texts()
    for row, text in zip(output[:, 3:].tolist(), texts, strict=True):
        assert row[: len(text)] == text
        assert set(row[len(text) :]) <= {0}
    own.check(texts)
    assert own.kind("discard") == []


class SecondRow(transformers.StoppingCriteria):
    """Ends the second row after two tokens, everything after six."""

    def __init__(self, length: int) -> None:
        self._length = length

    def __call__(self, input_ids: Any, scores: Any, **kwargs: Any) -> Any:
        count = input_ids.shape[1] - self._length
        return torch.tensor([count >= 6, count in (2, 6)])


def test_a_row_that_a_criterion_ends_is_noticed_a_step_later(run: Any, prompts: Any) -> None:
    own = run()
    ids, _ = prompts(3, 3)
    output = generate(
        own,
        [own.sampler.processor(own.named(2))],
        ids,
        max_new_tokens=20,
        stopping_criteria=[SecondRow(3)],
    )
    assert output.shape[1] == 3 + 6
    assert [line["reason"] for line in own.kind("discard")] == ["after_stop"]
    texts = own.texts()
    assert texts == [output[0, 3:].tolist(), output[1, 3:5].tolist()]
    own.check([texts[0][:-1], texts[1]], settled=False)
    assert sorted(line["reason"] for line in own.kind("end")) == ["departed", "stop"]


def test_every_call_begins_new_sequences(run: Any, prompts: Any) -> None:
    own = run()
    processor = own.sampler.processor()
    ids, _ = prompts(3)
    first = generate(own, [processor], ids)
    second = generate(own, [processor], first)
    assert [line["prompt_tokens"] for line in own.sequences()] in ([3, 8], [8, 3])
    expected = sorted([first[0, 3:].tolist(), second[0, 8:].tolist()])
    assert sorted(own.texts()) == expected


@pytest.mark.parametrize("do_sample", [False, True])
def test_it_decides_whether_transformers_samples_or_not(
    run: Any, prompts: Any, do_sample: bool
) -> None:
    own = run()
    output = generate(own, [own.sampler.processor()], prompts(3)[0], do_sample=do_sample, top_k=0)
    own.check(output[:, 3:].tolist())


def test_it_follows_transformers_parameters(run: Any, prompts: Any) -> None:
    own = run()
    processor = own.sampler.processor(follow_request=1)
    output = generate(own, [processor], prompts(3)[0], do_sample=True, top_k=3, temperature=0.5)
    own.check(output[:, 3:].tolist())
    assert max(line["rank"] for line in own.kind("token")) < 3
    assert {line["temperature"] for line in own.kind("token")} == {0.5}
    own = run()
    greedy = generate(own, [own.sampler.processor(follow_request=1)], prompts(3)[0])
    assert greedy.tolist() == generate(own, [], prompts(3)[0]).tolist()
    own.check([])


def test_a_generation_that_is_aborted_leaves_its_latest_token_open(run: Any, prompts: Any) -> None:
    """Whether anybody has got it is not known here, and the records say so."""
    own = run()

    class Breaking(transformers.LogitsProcessor):
        """Raises in the third step."""

        def __call__(self, input_ids: Any, scores: Any) -> Any:
            if input_ids.shape[1] == 5:
                raise RuntimeError("enough")
            return scores

    with pytest.raises(RuntimeError, match="enough"):
        generate(own, [Breaking(), own.sampler.processor()], prompts(3)[0])
    (text,) = own.texts()
    assert len(text) == 2
    own.check([text[:1]], settled=False)


def test_several_threads_share_it(run: Any, prompts: Any) -> None:
    own = run()
    processor = own.sampler.processor()
    ids, _ = prompts(3)
    with ThreadPoolExecutor(2) as pool:
        outputs = list(pool.map(lambda _: generate(own, [processor], ids), range(2)))
    assert sorted(own.texts()) == sorted(output[0, 3:].tolist() for output in outputs)


def test_nothing_may_act_after_it(run: Any, prompts: Any) -> None:
    own = run()
    processors = [own.sampler.processor(), transformers.InfNanRemoveLogitsProcessor()]
    with pytest.raises(ConfigError, match="InfNanRemoveLogitsProcessor would act after"):
        generate(own, processors, prompts(3)[0])
    with pytest.raises(ConfigError, match="WatermarkLogitsProcessor would act after"):
        generate(
            own,
            processors[:1],
            prompts(3)[0],
            watermarking_config=transformers.WatermarkingConfig(),
        )
    output = generate(own, processors[:1], prompts(3)[0], renormalize_logits=True)
    own.check(output[:, 3:].tolist())


def test_it_works_within_generate_alone(run: Any) -> None:
    own = run()
    processor = own.sampler.processor()
    ids, scores = torch.tensor([[1, 2]]), torch.zeros(1, 2048)
    with pytest.raises(ConfigError, match="works within generate alone"):
        processor(ids, scores)
    with pytest.raises(ConfigError, match=r"generation_config and .* of this call are not visible"):
        transformers.LogitsProcessorList([processor])(ids, scores)
    assert own.source.bytes_drawn == 0


def test_nothing_may_act_after_one_that_follows_either(run: Any, prompts: Any) -> None:
    own = run()
    sampling = {"do_sample": True, "top_k": 5}
    processor = own.sampler.processor(follow_request=1)
    with pytest.raises(ConfigError, match="WatermarkLogitsProcessor would act after"):
        generate(
            own,
            [processor],
            prompts(3)[0],
            watermarking_config=transformers.WatermarkingConfig(),
            **sampling,
        )
    both = [processor, own.sampler.processor(follow_request=1)]
    with pytest.raises(ConfigError, match="EntropyLogitsProcessor would act after"):
        generate(own, both, prompts(3)[0], **sampling)
    assert own.source.bytes_drawn == 0


def test_two_of_ours_do_not_choose_in_one_generation(run: Any, prompts: Any) -> None:
    own = run()
    with pytest.raises(ConfigError, match="whose tokens it chooses already"):
        own.generate(
            prompts(3)[0],
            max_new_tokens=2,
            do_sample=True,
            qr_follow_request=1,
            logits_processor=[own.sampler.processor(follow_request=1)],
        )
    assert own.source.bytes_drawn == 0


@pytest.mark.parametrize("max_new_tokens", [1, 6])
def test_an_assistant_is_refused_before_anything_is_drawn(
    run: Any, prompts: Any, max_new_tokens: int
) -> None:
    """With one token to come the assistant is not asked, but accepted tokens are no draws."""
    own = run()
    with pytest.raises(ConfigError, match="assistant_model: assisted decoding"):
        generate(
            own,
            [own.sampler.processor()],
            prompts(3)[0],
            assistant_model=own.model,
            max_new_tokens=max_new_tokens,
        )
    assert own.source.bytes_drawn == 0


def test_the_criteria_say_which_tokens_end_a_row(run: Any, prompts: Any) -> None:
    """A criterion of the user replaces that of the configuration."""
    own = run()
    output = generate(
        own,
        [own.sampler.processor()],
        prompts(3)[0],
        eos_token_id=list(range(0, 2048, 2)),
        stopping_criteria=[transformers.EosTokenCriteria(END_TOKEN)],
    )
    assert output.shape[1] == 3 + 5
    own.check(output[:, 3:].tolist())


@pytest.mark.parametrize("ends", [None, [-1]])
def test_a_text_without_entropy_gets_no_token_of_the_engine(
    run: Any, prompts: Any, monkeypatch: pytest.MonkeyPatch, ends: list[int] | None
) -> None:
    """Without an end token the loop goes on, with one token and none of its own choice."""
    own = run(fallback_mode="end_request")
    own.source.fail_after = 2
    monkeypatch.setattr(own.model.generation_config, "eos_token_id", ends)
    output = generate(own, [own.sampler.processor()], prompts(3)[0])
    assert output[0, 5:].tolist() == [0, 0, 0]
    own.check([output[0, 3:6].tolist()])


def test_no_sequence_stays_open_when_another_is_refused(run: Any, prompts: Any) -> None:
    own = run()
    with pytest.raises(ConfigError, match="qr_top_p=3"):
        generate(own, [own.sampler.processor([{}, {"top_p": 3}])], prompts(3, 3)[0])
    assert own.sampler.sampler.open == []


def test_a_list_that_is_used_again_begins_again(run: Any, prompts: Any) -> None:
    """Code of the user may run the loop twice with what it was given once."""
    own = run()
    shared = transformers.LogitsProcessorList([own.sampler.processor()])

    def twice(model: Any, input_ids: Any, **prepared: Any) -> list[Any]:
        prepared.pop("past_key_values")
        prepared["logits_processor"] = shared
        caches = (transformers.DynamicCache(), transformers.DynamicCache())
        return [model._sample(input_ids, past_key_values=each, **prepared) for each in caches]

    outputs = own.model.generate(
        prompts(3)[0], max_new_tokens=4, pad_token_id=0, custom_generate=twice
    )
    texts = [output[0, 3:].tolist() for output in outputs]
    assert [len(text) for text in texts] == [4, 4]
    assert sorted(own.texts()) == sorted(texts)
    assert own.kind("discard") == []
