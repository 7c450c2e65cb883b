"""The settings of a finished or running self-rewarding stage, read back from the config that it saved.

`psr analyse RUN` thus queries a run's models as the run did. Knows the saved config, not what it is used for.
"""

from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import yaml
from jsonargparse import ArgumentParser

from psr.engines.base import Engine
from psr.errors import UsageError
from psr.prompts.templates import Prompts
from psr.search.judges import JudgeSettings
from psr.search.step_search import SearchSettings

CONFIG = Path("self_rewarding") / "fit.yaml"
SFT_CONFIG = Path("sft") / "fit.yaml"


@dataclass(frozen=True)
class RunSettings:
    """The settings of a run's stages, with absolute paths.

    Args:
        problems: held-out problems with answers.
        judge_pairs: files of held-out judged pairs.
        max_tokens: greedy solutions are cut off at this many tokens.
        ift: worked solutions of supervised training; empty where the run did not train M1 itself.
        eft: files of judged pairs of supervised training.
        scores: whether supervised training had scored responses as well.
    """

    run: Path
    engine: Engine
    prompts: Prompts
    judge: JudgeSettings
    search: SearchSettings
    problems: Path
    judge_pairs: list[Path]
    max_tokens: int
    ift: list[Path]
    eft: list[Path]
    scores: bool

    def models(self) -> dict[str, Path]:
        """The exported models of the run by name, in the order of training: M0, M0-ift, M1, ..."""
        folders = [path for path in (self.run / "models").glob("M*") if (path / "config.json").is_file()]
        if not folders:
            raise UsageError(f"{self.run / 'models'}: there is no model M0, M1, ...: is {self.run} a run directory?")
        numbered = sorted(folders, key=lambda path: (int(path.name[1:].partition("-")[0]), path.name))
        return {path.name: path for path in numbered}


def read_run_settings(run: Path, engine: Engine | None = None) -> RunSettings:
    """The settings of the run in the folder `run`, with another engine if one is given.

    Raises:
        UsageError: there is no saved config, or it is not one of a self-rewarding stage with an evaluation.
    """
    run = run.resolve()
    config = _read(run / CONFIG, required=True)
    data = config["data"]["init_args"]
    evaluations = [one for one in config["trainer"]["callbacks"] or [] if "EvaluateIterations" in one["class_path"]]
    if not evaluations:
        raise UsageError(f"{run / CONFIG}: the run evaluates no iteration, so that there are no held-out problems")
    evaluation = evaluations[0]["init_args"]
    sft = _read(run / SFT_CONFIG, required=False)
    supervised = sft["data"]["init_args"] if sft else {}
    parser = ArgumentParser(exit_on_error=False)
    for name, kind in {"prompts": Prompts, "judge": JudgeSettings, "search": SearchSettings}.items():
        parser.add_class_arguments(kind, name)
    parser.add_subclass_arguments(Engine, "engine")
    given = {name: data[name] for name in ("prompts", "judge", "search", "engine") if data[name] is not None}
    asked = {field.name for field in fields(JudgeSettings)}  # here the models judge, whoever judged in the loop
    given |= {"judge": {name: value for name, value in (given.get("judge") or {}).items() if name in asked}}
    made = parser.instantiate(parser.parse_object(given))
    return RunSettings(
        run=run,
        engine=engine or made.engine,
        prompts=made.prompts,
        judge=made.judge,
        search=made.search,
        problems=run / evaluation["problems"],
        judge_pairs=[run / path for path in _listed(evaluation["judge_pairs"])],
        max_tokens=evaluation["max_tokens"],
        ift=[run / path for path in _listed(supervised.get("ift"))],
        eft=[run / path for path in _listed(supervised.get("eft"))],
        scores=bool(supervised.get("scores")),
    )


def _read(path: Path, required: bool) -> dict[str, Any]:
    if path.is_file():
        return yaml.safe_load(path.read_text(encoding="utf-8"))
    if required:
        raise UsageError(
            f"{path}: no such file: name the run directory of a run that has reached its self-rewarding stage"
        )
    return {}


def _listed(value: str | list[str] | None) -> list[str]:
    return [value] if isinstance(value, str) else value or []
