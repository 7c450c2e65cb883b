"""What a reply of SGLang must hold to be one, field by field."""

import copy
from typing import Any

import pytest

from psr.engines.sglang.protocol import Ask, read_replies
from psr.files.jsonl import DataError
from tests.engines.fake_sglang import reply_to

ASK = Ask((5, 5, 5), {"max_new_tokens": 2})
GOOD = reply_to([5, 5, 5], {"max_new_tokens": 2}, [7, 8])


def test_a_reply_is_read_and_one_of_no_list_is_one():
    for given in (GOOD, [GOOD]):
        [reply] = read_replies(given, [ASK], (7, 8))
        assert reply["output_ids"] == GOOD["output_ids"]


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("output_ids",), "12"),
        (("output_ids",), [1, "2"]),
        (("meta_info",), None),
        (("meta_info", "finish_reason"), None),
        (("meta_info", "finish_reason", "type"), "tired"),
        (("meta_info", "prompt_tokens"), "3"),
        (("meta_info", "weight_version"), None),
        (("meta_info", "weight_versions"), ["M1"]),
        (("meta_info", "output_token_logprobs"), [[None, 1, None]]),  # SGLang's JSON of a NaN
        (("meta_info", "output_token_logprobs"), [[float("nan"), 1, None]]),
        (("meta_info", "output_token_logprobs"), [[10**400, 1, None]]),
        (("meta_info", "output_token_logprobs"), [[-0.5]]),
        (("meta_info", "output_token_ids_logprobs"), []),
        (("meta_info", "output_token_ids_logprobs"), [[[-0.5, 7, None]]]),
    ],
)
def test_what_is_missing_or_of_another_kind_is_named(path: tuple[str, ...], value: Any):
    reply: Any = copy.deepcopy(GOOD)
    *above, last = path
    place = reply
    for name in above:
        place = place[name]
    place[last] = value
    with pytest.raises(DataError, match=rf"{last}|without the log-probabilities"):
        read_replies(reply, [ASK], (7, 8))
    del place[last]
    with pytest.raises(DataError, match=rf"{last}.* is missing|without the log-probabilities"):
        read_replies(reply, [ASK], (7, 8))


def test_as_many_replies_as_prompts():
    for given in ([], [GOOD, GOOD], "text", None, [None]):
        with pytest.raises(DataError):
            read_replies(given, [ASK], ())
