"""`psr` command lines, one after the other, in one process or in several that torchrun starts."""

import json
import os
import subprocess
import sys
from pathlib import Path

from tests.recipes.tiny_run import LIMIT, environment

SHARDED = [
    *("--trainer.strategy", "ShardedStrategy", "--trainer.strategy.compute_dtype", "float32"),
    *("--trainer.strategy.export_dtype", "float32"),
]
DDP = ["--trainer.strategy", "ddp"]


def launch(folder: Path, ranks: int, *commands: list[str]) -> None:
    """Run `psr` with each of the `commands` in `folder`, in `ranks` processes; it has to end well."""
    plan = folder / "commands.json"
    plan.write_text(json.dumps([[*command, "--trainer.devices", str(ranks)] for command in commands]))
    torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(ranks)]
    done = subprocess.run(
        [sys.executable, *torchrun, __file__, str(plan)],
        env={**environment(), "HF_HUB_OFFLINE": "1"},
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=LIMIT,
    )
    assert done.returncode == 0, done.stderr[-5000:]


if __name__ == "__main__":
    from psr.cli.main import main

    for arguments in json.loads(Path(sys.argv[1]).read_text()):
        main(arguments)
    sys.stdout.flush()
    os._exit(0)  # gloo's threads may outlive a second fit's process group, and would hold the process
