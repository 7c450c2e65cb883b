"""What the trained modules share: how the gradient is clipped and how its norm is logged."""

from pathlib import Path
from shutil import copytree
from typing import Any

import pytest
import torch
from lightning import Trainer
from torch import Tensor

from psr.data.rows import row_loader
from psr.modules.figures import StepFigures
from psr.modules.finite import DivergedError
from psr.modules.sft import SFTModule
from psr.policy.folder import export_policy, load_policy
from psr.policy.tokenizer import PolicyError, load_tokenizer
from tests.modules.test_sft import ONE_ROW, SAMPLES, SOME_ROWS, plan
from tests.modules.test_step_dpo import QUIET


class Descent(SFTModule):
    """One step of plain gradient descent: the weights move by the clipped gradient."""

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD(self.parameters(), lr=1.0)


def fit(module: SFTModule, row_tokens: int, **options: Any) -> Trainer:
    rows = plan(row_tokens, len(SAMPLES))
    trainer = Trainer(accelerator="cpu", devices=1, max_epochs=1, **QUIET, **options)
    trainer.fit(module, row_loader(rows, trainer))
    return trainer


def moved(module: SFTModule, folder: Path) -> list[Tensor]:
    assert module.policy is not None
    before = load_policy(folder)
    return [p.detach() - before.get_parameter(name) for name, p in module.policy.named_parameters()]


@pytest.mark.parametrize("row_tokens", [ONE_ROW, SOME_ROWS])
def test_the_norm_is_logged_before_clipping_and_clipped_once_per_optimizer_step(llama: Path, row_tokens: int):
    free, clipped = Descent(str(llama)), Descent(str(llama))
    norm = fit(free, row_tokens).logged_metrics["train/grad_norm"].item()
    assert torch.nn.utils.get_total_norm(moved(free, llama)).item() == pytest.approx(norm, rel=1e-3)
    assert norm > 0.2
    same = fit(clipped, row_tokens, gradient_clip_val=0.1).logged_metrics["train/grad_norm"].item()
    assert same == pytest.approx(norm, rel=1e-5)
    assert torch.nn.utils.get_total_norm(moved(clipped, llama)).item() == pytest.approx(0.1, rel=1e-2)


def test_clipping_by_value(llama: Path):
    module = Descent(str(llama))
    fit(module, SOME_ROWS, gradient_clip_val=0.01, gradient_clip_algorithm="value")
    assert max(change.abs().max().item() for change in moved(module, llama)) == pytest.approx(0.01, rel=1e-3)


def test_the_optimizer_is_fused_and_clips_in_bfloat16_too(llama: Path):
    module = SFTModule(str(llama), lr=1e-2, warmup_share=0.0)
    trainer = fit(module, SOME_ROWS, gradient_clip_val=0.1, precision="bf16-mixed")
    assert trainer.optimizers[0].defaults["fused"] and trainer.global_step == 1
    assert max(change.abs().max().item() for change in moved(module, llama)) == pytest.approx(1e-2, rel=1e-2)


def test_a_training_that_diverges_ends_at_once_and_exports_nothing(llama: Path, tmp_path: Path):
    module = SFTModule(str(llama), export_to=str(tmp_path / "M1"), lr=1e12, warmup_share=0.0, weight_decay=0.5)
    trainer = Trainer(accelerator="cpu", devices=1, max_epochs=5, **QUIET)
    rows = plan(SOME_ROWS, 4)
    told = r"at optimizer step [23]: the loss is nan.* rows? [\d, ]+ of the epoch.*lr 1000000000000\.0.*decay 0\.5"
    with pytest.raises(DivergedError, match=told):
        trainer.fit(module, row_loader(rows, trainer))
    assert trainer.global_step <= 2 and not (tmp_path / "M1").exists()


@pytest.mark.parametrize("broken", [float("nan"), float("inf")])
def test_a_model_with_a_weight_that_is_no_number_is_neither_written_nor_read(
    llama: Path, tmp_path: Path, broken: float
):
    policy, tokenizer = load_policy(llama), load_tokenizer(llama)
    name = "model.layers.1.mlp.up_proj.weight"
    with torch.no_grad():
        policy.get_parameter(name)[0, 0] = broken
    with pytest.raises(PolicyError, match=f"M1: the weight {name} holds NaN or infinity"):
        export_policy(policy, tokenizer, tmp_path / "M1")
    assert not list(tmp_path.iterdir())
    policy.save_pretrained(tmp_path / "M1")
    with pytest.raises(PolicyError, match=f"M1: the weight {name} holds NaN or infinity"):
        load_policy(tmp_path / "M1")


def test_a_model_that_was_cut_short_is_named(llama: Path, tmp_path: Path):
    copytree(llama, tmp_path / "M1")
    [file] = (tmp_path / "M1").glob("*.safetensors")
    file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(PolicyError, match=r"M1: its weights cannot be loaded: SafetensorError"):
        load_policy(tmp_path / "M1")


def test_the_figures_of_a_step_stay_on_the_device_of_the_losses():
    """Sums of a GPU beside counts of the host would be an error there; "meta" is another device, too."""
    figures = StepFigures()
    for _ in range(2):
        figures.add({"loss": torch.ones(3, device="meta"), "accuracy": torch.ones((), device="meta")})
    assert all(value.device.type == "meta" for value in figures.take().values())
