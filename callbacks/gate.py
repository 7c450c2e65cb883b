"""The gate at the hand-over: is M(n + 1) worse than what is there? Told without a label, before it searches.

Both solve probe problems that no iteration searches; an earlier model judges the two solutions of each. Judge accuracy
on held-out pairs and the agreement of both orders stay high while a policy collapses, since they look at what the judge
is shown, not at what the policy writes. Comes right after SelfRewardingLoop in the config, before what evaluates.

Knows the loop's hooks and files; how two models are compared is psr/evaluation/probing.py's.
"""

import asyncio
import shutil
import time
from dataclasses import asdict
from typing import Any, Literal

import torch
from lightning import Callback, LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_warn

from callbacks.self_rewarding_loop import loop_data
from psr.bounds import Count, CountOrNone, OpenShare, Positive, bounded
from psr.data.self_rewarding import SelfRewardingDataModule
from psr.engines.base import Sampling
from psr.engines.sglang.weights import label_of
from psr.engines.usage import Usage, used_between
from psr.errors import UsageError
from psr.evaluation.probing import Probe, Unit, compare, probe, probe_from_json
from psr.files.jsonl import read_json, write_json
from psr.files.problems import read_problems
from psr.modules.step_dpo import StepDPOModule
from psr.records import Problem
from psr.run.folder import SECONDS, add_seconds
from psr.run.gate import Action, best_before, decided
from psr.run.results import update_model
from psr.search.fitting import fitting


class Gate(Callback):
    """Compares M(n + 1) with the best model so far; `iterations/<nn>/gate.json` has the figures and the decision.

    Args:
        action: what follows where M(n + 1) is significantly worse: "warn" says so and goes on with it; "stop" ends the
            run well, with M(n) as its result; "keep" puts M(n) back in the place of M(n + 1), which stays beside it as
            M<n + 1>-rejected, and M(n) searches the next iteration's problems.
        judge: who compares: "initial" is M1, which cannot drift with the loop, "previous" is M(n).
        compare: "step" shows the judge the first steps in which two solutions differ, "whole" all of them.
        problems: JSONL of probe problems with `id` and `problem`, other fields are never read; the last of the loop's
            own problems, which no iteration searches, if not given.
        probes: how many probe problems: six lost and none won are significant, and so are 22 to 9; 27 to 16 are not.
            More problems tell smaller falls.
        samples: sampled solutions of each, as the search samples, for the share that agrees with the greedy answer.
        level: of the interval of the share of wins; it has to lie below one half as a whole.
        max_tokens: solutions are cut off at so many tokens.
        lr_factor: after every model that was not taken, with "keep", the learning rate is multiplied by this.
    """

    @bounded("gate")
    def __init__(
        self,
        action: Action = "warn",
        judge: Literal["initial", "previous"] = "initial",
        compare: Unit = "step",
        problems: str | None = None,
        probes: Count = 100,
        samples: CountOrNone = 2,
        level: OpenShare = 0.95,
        max_tokens: Count = 1024,
        lr_factor: Positive = 1.0,
    ) -> None:
        if lr_factor != 1 and action != "keep":
            raise UsageError(f"gate.lr_factor is {lr_factor} and gate.action {action!r}: only keep goes on from M(n)")
        self.action, self.judge, self.unit, self.file, self.count = action, judge, compare, problems, probes
        self.samples, self.level, self.max_tokens, self.lr_factor = samples, level, max_tokens, lr_factor
        self.problems: list[Problem] = []
        self.lr = 0.0
        self.weights: list[torch.Tensor] = []

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        if stage != "fit":
            return
        assert isinstance(pl_module, StepDPOModule)
        data, self.lr = loop_data(trainer), pl_module.lr
        self.problems = probe_problems(data, self.file, 1 if data.most_pairs else self.count)  # one of a dev run
        stopped = [one["number"] for one in decided(data.run) if one["decision"] == "stop"]
        if stopped and self.action == "stop":  # a run that is started again after its end: no iteration follows
            trainer.fit_loop.max_epochs = stopped[0] - 1
            data.problems_per_iteration = data.problems_per_iteration[: stopped[0] - 1]

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        data = loop_data(trainer)
        if trainer.is_global_zero and trainer.current_epoch == 0:
            started = time.monotonic()
            asyncio.run(self._probes(data, 1))
            add_seconds(data.run.iteration(1), "gate", time.monotonic() - started)
        data.ranks.wait()

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        assert isinstance(pl_module, StepDPOModule)
        kept = sum(one["decision"] == "keep" for one in decided(loop_data(trainer).run, trainer.current_epoch + 2))
        pl_module.lr = self.lr * self.lr_factor**kept
        if self.action == "keep":
            self.weights = [part.to("cpu", copy=True) for part in pl_module.trained_parts()]

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        assert isinstance(pl_module, StepDPOModule)
        data, number = loop_data(trainer), trainer.current_epoch + 2
        pl_module.lr = self.lr  # before a checkpoint is written: a fit goes on from those with its own settings only
        found: dict[str, Any] = {}
        if trainer.is_global_zero:
            found = asyncio.run(self._examine(data, number))
            self._tell(trainer, data, found)
        decision = data.ranks.exchange(found)[0]["decision"]
        if decision == "keep":
            self._put_back(data, pl_module, number)
        trainer.should_stop = trainer.should_stop or decision == "stop"

    async def _probes(self, data: SelfRewardingDataModule, number: int) -> list[Probe]:
        """What M`number` writes for the probe problems; kept beside what made it, for the hand-overs that follow."""
        path, label = data.run.probes(number), label_of(data.weights(number), f"M{number}")
        asked = [label, self.samples, self.max_tokens, [problem.id for problem in self.problems]]
        stored = read_json(path)
        if stored.get("asked") == asked:
            return [probe_from_json(row) for row in stored["probes"]]
        await data.serve(number)
        how, n = data.search, self.samples
        sampling = Sampling(self.max_tokens, how.temperature, how.top_p, n, how.seed) if n else None
        title = f"M{number} solves probes"
        probes = await probe(data.engine, data.encoder, self.problems, self.max_tokens, sampling, title)
        write_json(path, {"asked": asked, "probes": [asdict(one) for one in probes]})
        return probes

    async def _examine(self, data: SelfRewardingDataModule, number: int) -> dict[str, Any]:
        """The figures of the hand-over to M`number`, and what follows; the engine serves M`number` in the end."""
        started, before = time.monotonic(), dict(data.engine.usage)
        best, judging = best_before(data.run, number), 1 if self.judge == "initial" else number - 1
        new = await self._probes(data, number)
        old = await self._probes(data, best)
        await data.serve(judging)
        title = f"M{judging} compares M{number} with M{best}"
        figures = await compare(data.engine, data.encoder, data.judge, old, new, self.unit, self.level, title)
        await data.serve(number)
        seconds = time.monotonic() - started
        add_seconds(data.run.iteration(number), "gate", seconds)
        used = sum(used_between(before, data.engine.usage).values(), Usage())
        decision = self.action if figures["worse"] else "take"
        names = {"number": number, "against": f"M{best}", "judge": f"M{judging}", "decision": decision}
        spent = {"seconds": seconds, "generated_tokens": used.generated_tokens}
        return {**names, **figures, **spent}

    def _tell(self, trainer: Trainer, data: SelfRewardingDataModule, found: dict[str, Any]) -> None:
        """To `gate.json`, `results.json`, the loggers and, where M(n + 1) is worse, the terminal."""
        number, folder = found["number"], data.run.iteration(found["number"])
        write_json(data.run.gate(number), found)
        searched = read_json(folder / "search.json")
        made = {"pairs": searched.get("pairs", 0), "search": searched, "seconds": read_json(folder / SECONDS)}
        update_model(data.run.results, {"name": f"M{number}", **made, "gate": found})
        shown = {**found, **{f"{name}_before": value for name, value in found["before"].items()}, **found["after"]}
        metrics = {f"gate/{name}": float(v) for name, v in shown.items() if isinstance(v, int | float)}
        for logger in trainer.loggers:
            logger.log_metrics(metrics, step=trainer.global_step)
        if found["worse"]:
            rank_zero_warn(
                f"M{number} writes worse than {found['against']}: of {found['problems']} probe problems it wins "
                f"{found['wins']} and loses {found['losses']}, by the verdicts of {found['judge']}. "
                f"gate.action is {self.action}"
            )

    def _put_back(self, data: SelfRewardingDataModule, module: StepDPOModule, number: int) -> None:
        """M`number` is the model again that the iteration began with."""
        folder = data.run.model(number)
        if data.ranks.first:
            rejected = folder.with_name(f"{folder.name}-rejected")
            shutil.rmtree(rejected, ignore_errors=True)  # of this hand-over, killed before it was done
            folder.rename(rejected)
        with torch.no_grad():
            for part, before in zip(module.trained_parts(), self.weights, strict=True):
                part.copy_(before)
        module.export(folder)
        data.ranks.wait()
        if data.ranks.searches:  # `serve` would not: what is served bears this name already
            asyncio.run(data.engine.load_weights(folder, f"M{number}"))


def probe_problems(data: SelfRewardingDataModule, file: str | None, count: int) -> list[Problem]:
    """The last `count` problems of `file`, or of those that no iteration searches. Raises UsageError of too few."""
    found = data.problems[sum(data.problems_per_iteration) :]
    if file is not None:
        found = fitting(read_problems(file), data.encoder, data.initial, file, data.too_long, data.say)
    if len(found) < count:
        where = file or f"{data.problems_path} beyond those that the iterations search"
        raise UsageError(
            f"gate.probes is {count}, and there are {len(found)} problems in {where}: ask for fewer, search fewer, or "
            "name another file in gate.problems"
        )
    return found[-count:]
