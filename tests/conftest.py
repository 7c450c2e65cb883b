"""What the tests share: the quickstart's tokenizer and prompts, tiny random policies, a small real BPE tokenizer."""

import random
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast

from psr.policy.folder import export_policy, new_policy
from psr.policy.tiny_tokenizer import build_tokenizer
from psr.prompts.encoder import Encoder
from psr.prompts.templates import Prompts

torch.set_num_threads(1)

CONTEXT = 96
TINY = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "intermediate_size": 64,
    "max_position_embeddings": CONTEXT,
    "tie_word_embeddings": True,
    "initializer_range": 0.3,  # the usual 0.02 makes all next tokens about equally likely, and greedy a matter of luck
}

PolicyMaker = Callable[[str, int], Path]


@pytest.fixture(scope="session")
def tokenizer() -> PreTrainedTokenizerBase:
    """The quickstart's character tokenizer."""
    return build_tokenizer()


@pytest.fixture(scope="session")
def make_policy(tmp_path_factory: pytest.TempPathFactory, tokenizer: PreTrainedTokenizerBase) -> PolicyMaker:
    """(architecture, seed) -> folder of a tiny random policy; the same folder for the same arguments."""
    made: dict[tuple[str, int], Path] = {}

    def make(architecture: str, seed: int) -> Path:
        if (architecture, seed) not in made:
            with torch.random.fork_rng():
                torch.manual_seed(seed)
                folder = tmp_path_factory.mktemp("policies") / f"{architecture}-{seed}"
                export_policy(new_policy(architecture, TINY, tokenizer), tokenizer, folder)
            made[architecture, seed] = folder
        return made[architecture, seed]

    return make


@pytest.fixture(scope="session")
def qwen2(make_policy: PolicyMaker) -> Path:
    return make_policy("qwen2", 0)


@pytest.fixture(scope="session")
def llama(make_policy: PolicyMaker) -> Path:
    return make_policy("llama", 0)


@pytest.fixture(scope="session", params=["qwen2", "llama"])
def policy(request: pytest.FixtureRequest, make_policy: PolicyMaker) -> Path:
    """A tiny random policy of each architecture in turn."""
    return make_policy(request.param, 0)


@pytest.fixture(scope="session")
def prompts() -> Prompts:
    """The quickstart's: short templates, a step is a line."""
    return Prompts(reason="{problem}\n", judge="{problem}\n{steps}A {a}\nB {b}\n", step_marker="", step_separator="\n")


@pytest.fixture(scope="session")
def encoder(tokenizer: PreTrainedTokenizerBase, prompts: Prompts) -> Encoder:
    return Encoder(tokenizer, prompts)


BPE_PRE_TOKENIZERS = {
    # as GPT-2, Llama 3: a number takes the space before it, "Step" + " 1" + ":"
    "words": pre_tokenizers.ByteLevel(add_prefix_space=False),
    # as SmolLM, Qwen: digits stand alone, "Step" + " " + "1" + ":"
    "digits": pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    ),
    # nothing keeps a line break from the word that follows: "\nStep" becomes one token
    "lines": pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex("\n"), behavior="merged_with_next"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    ),
}


def train_bpe(kind: str) -> PreTrainedTokenizerFast:
    """A byte-level BPE of some 400 tokens, trained on worked solutions in the paper's step format."""
    rng = random.Random(0)
    steps = ("We add the two numbers", "Then the sum is", "So we subtract and find", "Hence the answer is \\boxed{7}")
    corpus = [f"Step {n}: {rng.choice(steps)} {rng.randrange(99)}.\n" * 2 for n in range(1, 12) for _ in range(20)]
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = BPE_PRE_TOKENIZERS[kind]
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=400, special_tokens=["<eos>"], initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator(corpus, trainer)
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<eos>", pad_token="<eos>")


@pytest.fixture(scope="session", params=["words", "digits"])
def bpe(request: pytest.FixtureRequest) -> PreTrainedTokenizerFast:
    """A real BPE tokenizer of each usual kind in turn."""
    return train_bpe(request.param)
