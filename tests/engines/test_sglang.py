"""Requests of the SGLang engine to a process that fails on demand; a real server is in tests/sglang."""

import asyncio
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest

from psr.engines.base import Engine, EngineError, Origin, PromptTooLong, Sampling
from psr.engines.sglang import Launch, SGLangEngine, transport
from psr.engines.sglang.replicas import SLACK
from psr.engines.usage import Usage
from psr.errors import PSRError
from tests.engines.conftest import EXPECTED, PROMPTS, Make, ask, asked, loaded, pids


def test_it_is_an_engine(make: Make):
    assert isinstance(make(), Engine)


def test_requests_carry_ids_seeds_and_stops_and_replies_their_version(make: Make, llama: Path, starts: Path):
    engine = loaded(make(), llama)
    sampling = Sampling(4, 0.7, 0.9, n=2, seed=3, stop=("\n",))
    replies = asyncio.run(engine.generate(PROMPTS, sampling))
    assert [[one.token_ids for one in completions] for completions in replies] == [[ids] * 2 for ids in EXPECTED]
    assert {one.weights_version for completions in replies for one in completions} == {"M1"}
    assert {one.finish_reason for completions in replies for one in completions} == {"eos"}
    assert replies[0][0].logprob == -1.0
    [body] = asked(starts)
    assert body["input_ids"] == [list(prompt) for prompt in PROMPTS for _ in range(2)]
    parameters = body["sampling_params"]
    assert len({one["sampling_seed"] for one in parameters[:2]}) == 2
    assert [one["sampling_seed"] for one in parameters[:2]] == [one["sampling_seed"] for one in parameters[2:4]]
    assert {(one["temperature"], one["top_p"], *one["stop"], one["max_new_tokens"]) for one in parameters} == {
        (0.7, 0.9, "\n", 4)
    }


def test_choices_are_given_back_in_the_order_asked(make: Make, llama: Path):
    engine = loaded(make(), llama)
    assert asyncio.run(engine.choice_logprobs(PROMPTS, [7, 5])) == [[-7.0, -5.0]] * 3


def test_what_requests_cost_is_counted_by_kind(make: Make, llama: Path):
    engine = loaded(make(), llama)
    ask(engine, Sampling(4, n=2))
    asyncio.run(engine.choice_logprobs(PROMPTS[:1], [7], Origin("p", "verdicts")))
    assert replace(engine.usage["candidates"], seconds=0.0) == Usage(6, 32, 2 * (1 + 2 + 4), 12)
    assert replace(engine.usage["verdicts"], seconds=0.0) == Usage(1, 3, 1, 1)
    assert engine.usage["candidates"].seconds > 6 * 0.05


@pytest.mark.parametrize(
    "failures",
    ["503 500", "drop", "drop 503 abort", "forget", "die", "503 die forget", "429 408", "torn deep", "few null shape"],
)
def test_a_failure_that_passes_is_tried_again_and_leaves_no_trace(failures: str, make: Make, llama: Path, starts: Path):
    engine = loaded(make({"FAKE_FAILS": failures}), llama)
    assert ask(engine) == EXPECTED
    assert len(pids(starts)) == 1 + failures.count("die")
    assert len(asked(starts)) == len(failures.split()) + 1


def test_tries_are_bounded_and_the_message_says_what_happened(make: Make, llama: Path, starts: Path):
    engine = loaded(make({"FAKE_FAILS": "503 " * 9}, retries=2), llama)
    with pytest.raises(EngineError, match=r"failed 3 times .* status 503: trouble number 503.* is kept"):
        ask(engine)
    assert len(asked(starts)) == 3


@pytest.mark.parametrize(
    ("failure", "said"),
    [
        ("torn", r"a reply that is no JSON: '\[\{\"text"),
        ("few", r"none of SGLang's: 0 replies to 3 prompts"),
        ("shape", r"none of SGLang's: 1 replies to 3 prompts"),
        ("null", r"none of SGLang's: 1 replies to 3 prompts"),
        ("429", "status 429: trouble number 429"),
    ],
)
def test_a_reply_that_stays_garbled_is_told_in_a_line(failure: str, said: str, make: Make, llama: Path):
    engine = loaded(make({"FAKE_FAILS": f"{failure} " * 9}, retries=1), llama)
    with pytest.raises(EngineError, match=rf"SGLang at http://127\.0\.0\.1:\d+ failed 2 times .*{said}") as error:
        ask(engine)
    assert "\n" not in str(error.value) and len(str(error.value)) < 400


@pytest.mark.parametrize("answer", [None, [], "object", {}, {"success": True}])
def test_an_answer_without_what_is_asked_for_is_a_failure_that_passes(answer: Any):
    with pytest.raises(transport.Transient, match="a reply without success and message: "):
        transport.fields(answer, "success", "message")


def test_no_message_quotes_the_key(make: Make, llama: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("SERVER_KEY", "planted-4711")
    engine = loaded(make({"FAKE_FAILS": "echo"}, key_env="SERVER_KEY"), llama)
    with pytest.raises(EngineError, match=r"refuses the request \(status 401\): what is Bearer \[the key\]\?"):
        ask(engine)


def test_a_key_of_any_characters_is_sent(make: Make, llama: Path):
    engine = loaded(make(), llama)
    for key in ("algèbre/1", "a\r\nX-Other: 1", "x" * 100_000):
        assert ask(engine, key=key) == EXPECTED


def test_a_bad_request_is_never_tried_again(make: Make, llama: Path, starts: Path):
    engine = loaded(make({"FAKE_FAILS": "400 422"}), llama)
    for _ in range(2):
        with pytest.raises(EngineError, match=r"refuses the request \(status 4\d\d\): trouble number 4"):
            ask(engine)
    assert len(asked(starts)) == 2


def test_a_remote_server_that_stays_away_ends_with_a_clear_message(llama: Path):
    engine = SGLangEngine(urls=["http://127.0.0.1:9"], retries=2)
    with pytest.raises(EngineError, match=r"127\.0\.0\.1:9 failed 3 times .* ConnectError.* start this command again"):
        loaded(engine, llama)


def test_a_prompt_without_room_is_refused_with_the_numbers(make: Make, llama: Path):
    engine = loaded(make(), llama)
    with pytest.raises(PromptTooLong, match=r"prompt of 91 tokens .* 90 .* context of 96 tokens"):
        asyncio.run(engine.generate([(5,) * 91], Sampling(4)))


def test_without_weights_every_request_says_so(make: Make, llama: Path):
    engine = make()
    for _ in range(2):
        for request in (engine.generate(PROMPTS, Sampling(4)), engine.choice_logprobs(PROMPTS, [1]), engine.health()):
            with pytest.raises(EngineError, match="no weights yet: call load_weights"):
                asyncio.run(request)
        loaded(engine, llama)
        asyncio.run(engine.close())


def test_what_prompts_share_is_sent_ahead_and_only_what_is_new_of_it(make: Make, llama: Path, starts: Path):
    engine = loaded(make(share_from=4), llama)
    prefix, origin = (5, 6, 7, 8, 9), Origin("p", "verdicts")
    prompts = [(*prefix, 10, 11), (*prefix, 12, 13)]
    for _ in range(2):
        asyncio.run(engine.choice_logprobs(prompts, [7], origin))
    asyncio.run(engine.choice_logprobs(prompts, [7]))  # of no problem: nothing is known of what they share
    assert [len(body["input_ids"]) for body in asked(starts)] == [1, 2, 2, 2]
    first = asked(starts)[0]
    assert first["input_ids"] == [list(prefix)] and first["sampling_params"][0]["max_new_tokens"] == 0
    usage = engine.usage["verdicts"]
    computed_ahead = len(prefix) - len(prefix) // 2  # the stand-in says that half of every prompt was cached
    assert (usage.requests, usage.prompt_tokens, usage.cached_tokens) == (4, 28, 4 * 3 - computed_ahead)


def test_new_weights_forget_what_was_sent_ahead(make: Make, llama: Path, starts: Path):
    engine = make(share_from=4)
    for version in ("M1", "M2"):
        loaded(engine, llama, version)
        ask(engine, Sampling(4, n=3))
    ahead = [body for body in asked(starts) if body["sampling_params"][0]["max_new_tokens"] == 0]
    assert len(ahead) == 2 * len(PROMPTS), "each is the beginning of the next"


def test_sequences_in_flight_are_bounded_and_reach_the_bound(make: Make, llama: Path):
    engine = loaded(make(concurrency=8, chunk=4), llama)

    async def many() -> None:
        await asyncio.gather(*(engine.generate(PROMPTS, Sampling(4)) for _ in range(20)))

    asyncio.run(many())
    url = engine._fleet.servers[0].url
    assert 6 <= httpx.get(f"{url}/most_running").json() <= 8


def test_a_problem_stays_with_its_server_and_problems_are_spread(make: Make, llama: Path, starts: Path):
    servers = [loaded(make(), llama) for _ in range(3)]
    urls = [server._fleet.servers[0].url for server in servers]
    engine = loaded(SGLangEngine(urls=urls), llama, "M2")

    async def search(key: str) -> None:
        for _ in range(4):
            await engine.generate([(5,) * (10 + int(key))], Sampling(4), Origin(key))

    async def many() -> None:
        await asyncio.gather(*(search(str(key)) for key in range(12)))

    asyncio.run(many())
    ports: dict[int, set[int]] = {}
    for body in asked(starts):
        ports.setdefault(len(body["input_ids"][0]), set()).add(body["port"])
    assert all(len(one) == 1 for one in ports.values())
    spread = [port for one in ports.values() for port in one]
    assert len(ports) == 12 and sorted(spread.count(port) for port in set(spread)) == [4, 4, 4]


def test_the_bound_is_every_servers_own(make: Make, llama: Path):
    urls = [loaded(make(), llama)._fleet.servers[0].url for _ in range(2)]
    engine = loaded(SGLangEngine(urls=urls, concurrency=8, chunk=4), llama, "M2")

    async def many() -> None:
        await asyncio.gather(*(engine.generate(PROMPTS, Sampling(4), Origin(str(key))) for key in range(40)))

    asyncio.run(many())
    assert all(6 <= httpx.get(f"{url}/most_running").json() <= 8 for url in urls)


def test_a_problem_moves_on_from_a_server_with_much_more_to_do(make: Make, llama: Path, starts: Path):
    urls = [loaded(make(), llama)._fleet.servers[0].url for _ in range(2)]
    engine = loaded(SGLangEngine(urls=urls, share_from=4), llama, "M2")
    prefix, origin = (5, 6, 7, 8, 9), Origin("p", "verdicts")
    ports = []
    for load in (0, SLACK, SLACK + 1):
        for replica in engine._fleet.placement.replicas:
            replica.load = load if replica is engine._fleet.placement.homes.get("p") else 0
        asyncio.run(engine.choice_logprobs([(*prefix, 10, load), (*prefix, 12, load)], [7], origin))
        ports.append(asked(starts)[-1]["port"])
    assert ports[0] == ports[1] != ports[2]
    ahead = [body["port"] for body in asked(starts) if len(body["input_ids"]) == 1]
    assert ahead == [ports[0], ports[2]], "what the prompts share is in no cache of the new server"


def test_weights_reach_every_server(make: Make, llama: Path):
    servers = [loaded(make(), llama)._fleet.servers[0].url for _ in range(2)]
    engine = loaded(SGLangEngine(urls=servers), llama, "M7")
    labels = {httpx.get(f"{url}/model_info").json()["weight_version"] for url in servers}
    assert len(labels) == 1 and labels.pop().startswith("M7-")
    assert asyncio.run(engine.health()) == "M7"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, r"engine\.urls .* engine\.launch .* one of the two"),
        ({"urls": ["http://x"], "launch": Launch()}, "one of the two"),
        ({"urls": ["http://x"], "concurrency": 0}, r"engine\.concurrency is 0"),
        ({"urls": ["http://x"], "chunk": 0}, r"engine\.chunk is 0"),
        ({"launch": Launch(), "router": "http://x"}, r"engine\.router .* give the urls"),
    ],
)
def test_settings_that_cannot_work_are_named(options: dict[str, Any], message: str):
    with pytest.raises(PSRError, match=message):
        SGLangEngine(**options)


def test_pauses_double_up_to_a_limit():
    for tries in range(1, 20):
        longest = min(transport.LONGEST_PAUSE, transport.FIRST_PAUSE * 2 ** (tries - 1))
        assert longest / 2 <= transport.pause(tries) <= longest
