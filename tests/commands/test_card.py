"""`psr model card` and `psr model push`: the card of a real run, and its upload to a hub that is not the real one."""

import base64
import json
import shutil
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import ModelCard
from transformers import AutoConfig

from psr.cli.main import main
from psr.report.model_card import fenced
from psr.run.results import read_results
from tests.recipes.tiny_run import finished_run


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return Path(shutil.copytree(finished_run().folder, tmp_path / "run"))


def read_card(folder: Path) -> ModelCard:
    return ModelCard.load(folder / "README.md")


def test_the_card_says_what_the_run_says(run: Path):
    main(["model", "card", str(run), "--license", "apache-2.0", "--datasets", "[openai/gsm8k]", "--base_model", "a/b"])
    card, last = read_card(run / "models" / "M3"), read_results(run / "results.json")["models"][-1]
    assert (card.data.license, card.data.base_model, card.data.datasets) == ("apache-2.0", "a/b", ["openai/gsm8k"])
    measured = {one.metric_name: one.metric_value for one in card.data.eval_results}
    assert measured["greedy accuracy"] == pytest.approx(last["accuracy"], abs=1e-4)
    for words in (
        "# tiny M3",
        "22 searched problems",
        "judge random",
        "tossed coins",
        "{problem}",
        "line break at its end included",
        "worked solutions: `ift.jsonl`, 360 rows",
        "held-out problems: `test.jsonl`, 12 rows",
        "| learning rate | 0.001 |",
        "https://huggingface.co/datasets/openai/gsm8k",
        "`apache-2.0`",
    ):
        assert words in card.text, words
    assert str(run) not in card.content, "paths of this machine are nobody's business"
    assert AutoConfig.from_pretrained(run / "models" / "M3").model_type == "llama", "the folder still loads"


def test_another_model_and_no_licence(run: Path, capsys: pytest.CaptureFixture[str]):
    main(["model", "card", str(run), "--model", "M1"])
    assert "names no licence" in capsys.readouterr().out
    card = read_card(run / "models" / "M1")
    assert card.data.license == "unknown" and "the iterations begin with" in card.text and "Not stated" in card.text


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (["card", "RUN", "--license", "other"], "--license_link"),
        (["card", "RUN", "--model", "M9"], "has measured M1, M2, M3"),
        (["push", "RUN/models/M2", "me/tiny"], "psr model card"),
        (["push", "RUN", "me/tiny"], "no model in"),
        (["push", "RUN/models/M3", "me/a/b", "--endpoint", "http://127.0.0.1:9"], "repo is 'me/a/b'"),
        (["push", "RUN/models/M3", "me/tiny", "--endpoint", "http://127.0.0.1:9"], "cannot be reached"),
    ],
)
def test_what_cannot_work_is_named_in_a_line(run: Path, words: list[str], named: str):
    (run / "models" / "M3" / "README.md").write_text("---\nlicense: mit\n---\n")
    with pytest.raises(SystemExit) as ended:
        main(["model", *(word.replace("RUN", str(run)) for word in words)])
    assert named in str(ended.value) and len(str(ended.value).splitlines()) == 1


def test_a_fence_is_longer_than_any_inside():
    assert fenced("a ````b").startswith("`````text\n") and fenced("a").startswith("```text\n")


@dataclass
class Hub:
    """The part of the hub's protocol that an upload speaks. `files` are what a commit put there."""

    address: str = ""
    token: str = "hf_secret"
    made: list[dict[str, Any]] = field(default_factory=list)
    large: dict[str, bytes] = field(default_factory=dict)
    files: dict[str, bytes] = field(default_factory=dict)

    def answer(self, path: str, body: bytes) -> Any:
        if path == "/api/repos/create":
            self.made.append(json.loads(body))
            return {"url": f"{self.address}/me/tiny"}
        if "/preupload/" in path:
            kinds = {True: "lfs", False: "regular"}
            asked = [one["path"] for one in json.loads(body)["files"]]
            return {
                "files": [{"path": p, "uploadMode": kinds["safetensors" in p], "shouldIgnore": False} for p in asked]
            }
        if path.endswith("/objects/batch"):
            wanted = json.loads(body)["objects"]
            link = {one["oid"]: {"upload": {"href": f"{self.address}/lfs/{one['oid']}"}} for one in wanted}
            return {"transfer": "basic", "objects": [{**one, "actions": link[one["oid"]]} for one in wanted]}
        if path.startswith("/lfs/"):
            self.large[path.removeprefix("/lfs/")] = body
            return {}
        if path == "/api/validate-yaml":
            return {"errors": [], "warnings": []}
        assert path == "/api/models/me/tiny/commit/main"
        for line in body.splitlines():
            row = json.loads(line)
            if row["key"] == "file":
                self.files[row["value"]["path"]] = base64.b64decode(row["value"]["content"])
            elif row["key"] == "lfsFile":
                self.files[row["value"]["path"]] = self.large[row["value"]["oid"]]
        return {"commitUrl": f"{self.address}/me/tiny/commit/1", "commitOid": "1" * 40}


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    served = Hub()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            known = self.path.startswith("/lfs/") or self.headers.get("Authorization") == f"Bearer {served.token}"
            reply = json.dumps(served.answer(self.path, body) if known else {"error": "who are you"}).encode()
            self.send_response(200 if known else 401)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(reply)))
            self.end_headers()
            self.wfile.write(reply)

        do_PUT = do_POST

        def log_message(self, format: str, *args: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    served.address = f"http://127.0.0.1:{server.server_address[1]}"
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_DISABLE_XET", True)
    yield served
    server.shutdown()
    server.server_close()


def test_a_model_is_uploaded_whole_and_private_with_nothing_else(
    run: Path, hub: Hub, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setenv("HF_TOKEN", hub.token)
    folder = run / "models" / "M3"
    main(["model", "card", str(run), "--license", "mit"])
    (folder / "notes.pt").write_text("mine")
    (folder / ".env").write_text("secret")
    main(["model", "push", str(folder), "me/tiny", "--endpoint", hub.address])
    [made] = hub.made
    assert (made["name"], made["organization"], made["visibility"]) == ("tiny", "me", "private")
    kept = {path.name: path.read_bytes() for path in folder.iterdir() if path.name not in ("notes.pt", ".env")}
    assert hub.files == kept and "model.safetensors" in kept and "README.md" in kept
    assert f"{hub.address}/me/tiny/commit/1" in capsys.readouterr().out


def test_without_a_token_the_way_to_one_is_named(run: Path, hub: Hub, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("HF_TOKEN", "hf_wrong")
    main(["model", "card", str(run), "--license", "mit"])
    with pytest.raises(SystemExit, match=r"does not take me/tiny: .*HF_TOKEN"):
        main(["model", "push", str(run / "models" / "M3"), "me/tiny", "--endpoint", hub.address])
    assert hub.files == {}
