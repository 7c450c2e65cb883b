"""No key of the environment is in any file of a run, W&B's offline files included, or in what the run says."""

from pathlib import Path

from tests.chaos.runs import before_the_loop, recipe
from tests.recipes.tiny_run import PLANTED, SECRETS, Finished, command, finished_run, run_to_end


def places(run: Finished) -> list[str]:
    """Where a secret is found, as a file, as the name of one, or on the terminal."""
    secret = PLANTED.encode()
    found = [str(path) for path in run.folder.parent.rglob("*") if PLANTED in path.name]
    found += [str(path) for path in run.folder.parent.rglob("*") if path.is_file() and secret in path.read_bytes()]
    return found + [name for name, said in (("stdout", run.stdout), ("stderr", run.stderr)) if PLANTED in said]


def test_a_whole_run_writes_no_key_anywhere():
    run = finished_run()
    assert all(PLANTED in secret for secret in SECRETS.values())
    assert list(run.folder.rglob("*.wandb")), "W&B's files are among those looked at"
    assert list(run.folder.rglob("fit.yaml")) and list(run.folder.rglob("*.ckpt"))
    assert places(run) == []


def test_a_run_that_fails_says_no_key(tmp_path: Path):
    """With the names of the variables among its settings, and an endpoint that is not there."""
    engine = "--data.init_args.engine"
    options = f"{engine} SGLangEngine {engine}.init_args.urls=[http://127.0.0.1:9] {engine}.init_args.retries 0"
    failing = recipe(tmp_path / "tiny", f"{options} {engine}.init_args.key_env ENGINE_KEY")
    folder = before_the_loop(tmp_path / "run")
    run = run_to_end(command(folder, recipe=failing), folder)
    assert run.code == 1 and "127.0.0.1:9 failed 1 times" in run.stderr, run.stderr[-2000:]
    assert "ENGINE_KEY" in (run.folder / "self_rewarding" / "fit.yaml").read_text()
    assert places(run) == []
