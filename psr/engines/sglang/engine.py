"""SGLangEngine: the Engine protocol on one or several SGLang servers.

Knows prompts, completions and what they cost; the fleet knows servers and failures. Weights have a unique label
(psr/engines/sglang/weights.py), and only completions that carry it are accepted: neither old weights, nor those of
another run that shares a server and has an M2 of its own, can slip in.
"""

import asyncio
import logging
import time
from collections import defaultdict, deque
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from psr.bounds import Count, CountOrNone, Seconds, bounded
from psr.engines.base import ANYWHERE, Completion, Engine, EngineError, Origin, PromptTooLong, Sampling
from psr.engines.sglang.fleet import Fleet
from psr.engines.sglang.prefixes import shared_prefixes
from psr.engines.sglang.protocol import (
    Ask,
    choice_logprobs,
    completion,
    completion_asks,
    prefill_ask,
    score_ask,
    usage_of,
)
from psr.engines.sglang.replicas import Replica, Server
from psr.engines.sglang.server import Launch, OwnedServer
from psr.engines.sglang.transport import Transient
from psr.engines.sglang.weights import label_of, staged
from psr.engines.usage import Usage
from psr.keys import secret
from psr.policy.tokenizer import check_folder, context_tokens, load_eos, load_tokenizer

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

log = logging.getLogger(__name__)

RECENT = 64
"""How many sequences of a key are remembered as being in its server's cache."""


class SGLangEngine(Engine):
    """Serves a policy from SGLang: from running servers, or from one that it starts and ends itself.

    Args:
        urls: addresses of running servers, which several processes may share. They must see the folders of weights
            under the same paths as this process.
        launch: starts a server instead; `{}` for SGLang's own settings.
        router: address of an sglang-router in front of the `urls`: prompts go there, weights to the servers. With
            `--policy manual --assignment-mode min_group` it keeps a problem's requests with one server, and deals the
            problems out evenly.
        concurrency: most sequences in flight, for every server or data-parallel rank.
        chunk: sequences in one HTTP request, all of which a failure repeats. A router takes one at a time.
        retries: how often a request is retried that found no server, timed out or met a status of 5xx.
        timeout: seconds for one HTTP request.
        share_from: the common prefix of prompts asked together is sent ahead where that saves the server at least this
            many tokens: one more round trip, but nothing is computed twice.
        colocated: lends the servers' memory to the trainer between searches; the servers need
            `--enable-memory-saver`, which `launch` adds.
        stage: folder on the node's own disk that weights are copied to, once for all its processes, before its servers
            load them: the shared file system is read once, not by every GPU. For servers on the node of this process.
        push: hands the servers the tensors of new weights through the node's memory, and not the name of their folder:
            its files are read once, by this process. For servers on the node of this process, without `dp`.
        key_env: environment variable that holds the API key of the `urls` and the router, where they ask for one.
    """

    @bounded("engine")
    def __init__(
        self,
        urls: list[str] | None = None,
        launch: Launch | None = None,
        router: str | None = None,
        concurrency: Count = 256,
        chunk: Count = 64,
        retries: CountOrNone = 8,
        timeout: Seconds = 600.0,
        share_from: Count = 64,
        colocated: bool = False,
        stage: str | None = None,
        push: bool = False,
        key_env: str | None = None,
    ) -> None:
        if launch is not None and colocated and launch.device != "cpu":  # where no memory is to be lent
            launch = replace(launch, args=[*launch.args, "--enable-memory-saver"])
        servers = servers_of(urls, launch, push)
        if router is not None and launch is not None:
            raise EngineError("engine.router stands before engine.urls, and engine.launch is set: give the urls")
        ranks = 1 if launch is None else launch.dp  # of running servers the ranks are not known: each counts as one
        self._fleet = Fleet(servers, router, ranks, concurrency, retries, timeout, secret("engine.key_env", key_env))
        self.chunk = 1 if router is not None else min(chunk, concurrency)
        self.share_from, self.colocated = share_from, colocated
        self.stage = None if stage is None else Path(stage).expanduser().absolute()
        self._usage: dict[str, Usage] = {}
        self._version: str | None = None
        self._tokenizer: PreTrainedTokenizerBase | None = None
        self._eos: frozenset[int] = frozenset()
        self._context = self._longest_prompt = 0
        # What `_share` need not send ahead again, by key.
        self._recent: dict[str, deque[tuple[int, ...]]] = defaultdict(lambda: deque(maxlen=RECENT))

    @property
    def served_version(self) -> str | None:
        return self._version

    @property
    def usage(self) -> Mapping[str, Usage]:
        return self._usage

    async def generate(
        self, prompts: Sequence[Sequence[int]], sampling: Sampling, origin: Origin = ANYWHERE
    ) -> list[list[Completion]]:
        # Each completion is a request of its own, in prompt-major order; grouped by `n` again below.
        asks = [ask for prompt in prompts for ask in completion_asks(prompt, sampling, self._room(prompt), self._eos)]
        version, replies = self._version, await self._ask(asks, (), origin)
        assert version is not None
        made = [completion(reply, self._decode, version) for reply in replies]
        return [made[i : i + sampling.n] for i in range(0, len(made), sampling.n)]

    async def choice_logprobs(
        self, prompts: Sequence[Sequence[int]], choices: Sequence[int], origin: Origin = ANYWHERE
    ) -> list[list[float]]:
        for prompt in prompts:
            self._room(prompt)
        replies = await self._ask([score_ask(prompt) for prompt in prompts], choices, origin)
        return [choice_logprobs(reply, choices) for reply in replies]

    async def load_weights(self, folder: Path, version: str) -> None:
        if self._fleet.busy:
            raise EngineError("weights cannot be changed while requests are waiting")
        self._version = None  # none until all servers have the new ones: a failure must not leave the old version
        self._recent.clear()
        folder = check_folder(folder).resolve()
        self._tokenizer, self._eos = load_tokenizer(folder), load_eos(folder)
        label = label_of(folder, version)
        if self.stage is not None:
            folder = await asyncio.to_thread(staged, folder, self.stage, label)
        await self._fleet.load(folder, label)
        await self._learn_limits(folder)
        self._version = version

    async def sleep(self) -> None:
        if self.colocated:  # servers on GPUs of their own keep their weights and stay ready
            self._version = None
            await self._fleet.sleep()

    async def health(self) -> str:
        self._check_serving()
        try:
            await self._fleet.check()
        except Transient as error:
            raise EngineError(f"SGLang does not serve {self._version}: {error}") from error
        assert self._version is not None
        return self._version

    async def close(self) -> None:
        self._version = None
        self._fleet.close()

    async def _learn_limits(self, folder: Path) -> None:
        abilities = await self._fleet.abilities()
        if self.colocated and not abilities.lends:
            raise EngineError(
                "engine.colocated is true, and a server of engine.urls was started without --enable-memory-saver: it "
                "would keep all of its memory while the trainer needs it. Start it with that argument"
            )
        self._longest_prompt = abilities.longest_prompt
        self._context = context_tokens(folder)
        if not abilities.seeded:
            log.info("SGLang samples without the seeds it is sent: only --enable-deterministic-inference honours them")

    def _check_serving(self) -> None:
        if self._version is None:
            raise EngineError("the engine serves no weights yet: call load_weights first")

    def _room(self, prompt: Sequence[int]) -> int:
        """Tokens that may follow the prompt."""
        self._check_serving()
        if len(prompt) > self._longest_prompt:
            raise PromptTooLong(
                f"a prompt of {len(prompt)} tokens is longer than the {self._longest_prompt} that the server takes for "
                f"the model's context of {self._context} tokens: shorten the prompt template, drop long problems or "
                "use a model with a longer context"
            )
        return self._context - len(prompt)

    def _decode(self, token_ids: Sequence[int]) -> str:
        assert self._tokenizer is not None
        text = self._tokenizer.decode(list(token_ids), skip_special_tokens=True, clean_up_tokenization_spaces=False)
        return str(text)

    async def _ask(self, asks: list[Ask], choices: Sequence[int], origin: Origin) -> list[dict[str, Any]]:
        """The replies to all of `asks`, in order; those of a key come from one replica."""
        chunks = [asks[i : i + self.chunk] for i in range(0, len(asks), self.chunk)]
        if not origin.key:  # nothing in common to be cached: spread over all replicas
            replies = await asyncio.gather(*(self._ask_idlest(chunk, choices, origin) for chunk in chunks))
            return [reply for some in replies for reply in some]
        replica, moved = self._fleet.placement.home(origin.key)
        if moved:
            self._recent.pop(origin.key, None)
        with replica.asked(len(asks)):  # load from now on, so that keys that ask meanwhile go elsewhere
            await self._share(asks, origin, replica)
            replies = await asyncio.gather(*(self._ask_chunk(chunk, choices, origin, replica) for chunk in chunks))
        return [reply for some in replies for reply in some]

    async def _share(self, asks: list[Ask], origin: Origin, replica: Replica) -> None:
        """Have the server prefill first what the prompts have in common."""
        recent = self._recent[origin.key]
        # Level after level: a longer prefix finds the shorter one that it continues in the cache.
        for level in shared_prefixes((ask.prompt for ask in asks), recent, self.share_from):
            await self._ask_chunk([prefill_ask(prefix) for prefix in level], (), origin, replica)

    async def _ask_idlest(self, asks: list[Ask], choices: Sequence[int], origin: Origin) -> list[dict[str, Any]]:
        replica = self._fleet.placement.idlest
        with replica.asked(len(asks)):
            return await self._ask_chunk(asks, choices, origin, replica)

    async def _ask_chunk(
        self, asks: list[Ask], choices: Sequence[int], origin: Origin, replica: Replica
    ) -> list[dict[str, Any]]:
        async with self._fleet.session() as session, session.gates[replica].room(len(asks)):
            started = time.monotonic()
            replies = await self._fleet.generate(session, replica, asks, choices, origin.key)
            # From here, not from the caller's: the wait at the gate is not the server's.
            self._count(asks, replies, origin, time.monotonic() - started)
            return replies

    def _count(self, asks: list[Ask], replies: list[dict[str, Any]], origin: Origin, seconds: float) -> None:
        used = Usage(seconds=seconds * len(asks))
        for ask, reply in zip(asks, replies, strict=True):
            used = used + usage_of(ask, reply)
            if origin.key:
                self._recent[origin.key].append(ask.prompt + tuple(reply["output_ids"]))
        self._usage[origin.kind] = self._usage.get(origin.kind, Usage()) + used


def servers_of(urls: list[str] | None, launch: Launch | None, push: bool) -> list[Server]:
    """The running servers, or the one to be started. Raises EngineError unless exactly one of the two is given."""
    if (not urls) == (launch is None):
        raise EngineError("engine.urls names running servers, engine.launch starts one: give one of the two")
    if launch is None:
        return [Server(url.rstrip("/"), push=push) for url in urls or []]
    owned = OwnedServer(launch)
    return [Server(owned.url, owned, push)]
