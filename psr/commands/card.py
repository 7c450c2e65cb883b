"""`psr model card` and `psr model push`: a run's model for others, with a card that says how it was made."""

import sys
from pathlib import Path

from rich.console import Console
from rich.text import Text

from psr.errors import PSRError, UsageError

UPLOADED = ("README.md", "*.json", "*.safetensors", "*.model", "*.txt", "*.jinja")
"""A model's own files: whatever else somebody put into the folder stays here."""


class PushError(PSRError, RuntimeError):
    """The hub does not take the upload; the message says what it said."""


def card(
    run: Path,
    model: str | None = None,
    license: str = "unknown",
    license_name: str | None = None,
    license_link: str | None = None,
    base_model: str | None = None,
    datasets: list[str] | None = None,
    language: list[str] | None = None,
) -> None:
    """Write the model card of a run's model: data, settings, results, licence; as README.md into the model's folder.

    Args:
        run: folder that `psr run` wrote to.
        model: name of the model, as in M4; the last one if not given.
        license: the hub's identifier of the licence, as in apache-2.0; "other" needs the two that follow.
        license_name: the name of another licence.
        license_link: where its text is.
        base_model: the hub's name of the model that the run started from, if it is there.
        datasets: the hub's names of the data sets that the training files come from.
        language: of problems and solutions; [en] if not given.
    """
    from psr.policy.tokenizer import check_folder
    from psr.report.model_card import CardFields, build_card
    from psr.report.runs import read_runs

    [found] = read_runs([run])
    name = model or found.models[-1]["name"]
    fields = CardFields(license, license_name, license_link, base_model, datasets or [], language or ["en"])
    text = build_card(found, name, fields)
    path = check_folder(run / "models" / name) / "README.md"
    path.write_text(text, encoding="utf-8")
    console = Console()
    console.print(Text(str(path), style=f"link {path.resolve().as_uri()}"), soft_wrap=True)
    if license == "unknown":
        console.print("the card names no licence: give one with --license before others use the model", soft_wrap=True)


def push(folder: Path, repo: str, private: bool = True, endpoint: str | None = None) -> None:
    """Upload a model's folder, with its card, to the Hugging Face hub. Nothing else of psr uploads anything.

    It needs a token that may write: `hf auth login`, or the environment variable HF_TOKEN.

    Args:
        folder: the model, as in runs/quickstart/models/M4.
        repo: its name on the hub, as in NAME/MODEL; made if it is not there.
        private: whether a new repository can be seen by you alone.
        endpoint: address of the hub; HF_ENDPOINT, or https://huggingface.co, if not given.
    """
    import httpx2  # what huggingface_hub asks with
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError
    from huggingface_hub.utils import disable_progress_bars

    from psr.policy.tokenizer import check_folder

    if not (check_folder(folder) / "README.md").is_file():
        raise UsageError(f"folder is {folder}, which has no README.md: write the card with `psr model card` first")
    if not sys.stderr.isatty():
        disable_progress_bars()  # which would fill a log with redrawn lines
    hub = HfApi(endpoint=endpoint)
    try:
        hub.create_repo(repo, private=private, exist_ok=True)
        done = hub.upload_folder(repo_id=repo, folder_path=folder, allow_patterns=list(UPLOADED), commit_message="psr")
    except HFValidationError as error:
        raise UsageError(f"repo is {repo!r}: {error}") from None
    except HfHubHTTPError as error:
        hint = "; log in with `hf auth login`, or set HF_TOKEN" if error.response.status_code in (401, 403) else ""
        said = str(error).strip().splitlines()[0]
        raise PushError(f"{hub.endpoint} does not take {repo}: {said}{hint}") from None
    except httpx2.HTTPError as error:
        raise PushError(f"{hub.endpoint} cannot be reached: {error}") from None
    Console().print(Text(str(done.commit_url), style=f"link {done.commit_url}"), soft_wrap=True)
