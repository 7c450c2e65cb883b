"""A policy over many GPUs: FSDP2 and tensor parallelism, applied here and nowhere else.

A rank holds its shards of the weights, gradients and optimizer state in float32; a layer is all-gathered for its own
forward and backward pass. Shards are read directly from the safetensors files of a Hugging Face folder, and exported as
such a folder.

Knows PyTorch's DTensors and causal language models of the Llama and Qwen2 kind. Does not know losses or data.
"""

import copy
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from datetime import timedelta
from pathlib import Path
from typing import Any, Literal

import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp
from lightning.pytorch.strategies import ModelParallelStrategy
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.distributed.checkpoint import CheckpointException
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import CPUOffloadPolicy, MixedPrecisionPolicy, OffloadPolicy, fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor
from torch.distributed.tensor.parallel import ColwiseParallel, RowwiseParallel, parallelize_module
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from psr.files.jsonl import write_json
from psr.files.whole import PARTIAL, refused, replacing
from psr.policy.checkpoints import check_whole
from psr.policy.folder import check_finite, not_finite
from psr.policy.lora import merged_weights, plain_name
from psr.policy.reading import UNREADABLE, one_line
from psr.policy.tokenizer import PolicyError, check_folder

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}
# Megatron's tensor parallelism (arXiv 1909.08053): the first product of attention and MLP is divided by columns and the
# second by rows, so that each block needs a single all-reduce.
COLUMNS = ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "mlp.gate_proj", "mlp.up_proj")
ROWS = ("self_attn.o_proj", "mlp.down_proj")
FILE_BYTES = 5 * 2**30
"""Largest exported file, unless a single tensor is larger."""


class ShardedStrategy(ModelParallelStrategy):
    """FSDP2 over all GPUs, or over groups of GPUs that share every layer (tensor parallelism).

    Weights, gradients and optimizer state are float32 and sharded: use it with `precision: 32-true`, as mixed precision
    is set by `compute_dtype`. Its checkpoints are folders to which every rank writes its part; any number of ranks can
    resume from them.

    Args:
        tensor_parallel_size: GPUs of one node that share every layer and see the same data; must divide the number of
            key-value heads.
        compute_dtype: dtype of gathered weights and activations; gradients are reduced over ranks in float32.
        cpu_offload: keep shards and optimizer state in host memory; the optimizer runs there.
        reshard_after_forward: free a gathered layer until its backward pass: less memory, one more all-gather.
        export_dtype: dtype of exported weights.
        timeout_minutes: a collective operation that takes longer is an error.
        process_group_backend: by default "nccl" on GPUs and "gloo" on a CPU.
    """

    def __init__(
        self,
        tensor_parallel_size: int = 1,
        compute_dtype: Literal["float32", "bfloat16"] = "bfloat16",
        cpu_offload: bool = False,
        reshard_after_forward: bool = True,
        export_dtype: Literal["float32", "bfloat16"] = "bfloat16",
        timeout_minutes: float = 30.0,
        process_group_backend: str | None = None,
    ) -> None:
        super().__init__(
            tensor_parallel_size=tensor_parallel_size,
            process_group_backend=process_group_backend,
            timeout=timedelta(minutes=timeout_minutes),
        )
        self.tensor_parallel_size, self.cpu_offload = tensor_parallel_size, cpu_offload
        self.compute_dtype, self.reshard_after_forward = DTYPES[compute_dtype], reshard_after_forward
        self.export_dtype = DTYPES[export_dtype]

    def setup_environment(self) -> None:
        devices = self.num_nodes * self.num_processes
        if devices % self.tensor_parallel_size:
            raise PolicyError(
                f"trainer.strategy.tensor_parallel_size is {self.tensor_parallel_size}, and there are {devices} GPUs: "
                "it must divide them"
            )
        # Lightning's "auto" would be the number of nodes, with tensor parallelism over all GPUs of each.
        self._data_parallel_size = devices // self.tensor_parallel_size
        super().setup_environment()

    def model_to_device(self) -> None:
        """With `cpu_offload`, parameters stay in host memory and only buffers go to the GPU."""
        if not self.cpu_offload:
            super().model_to_device()
            return
        assert self.model is not None
        for module in self.model.modules():
            for name, buffer in module.named_buffers(recurse=False):
                setattr(module, name, buffer.to(self.root_device))

    def shard(self, root: nn.Module, policy: PreTrainedModel, folder: str | Path) -> None:
        """Shard the policy, whose parameters are on the meta device, and read this rank's shards from `folder`.

        `root` is the module whose forward pass is called; the policy is part of it.
        """
        # Tensor parallelism first: FSDP then shards the rank's part of a layer over the data-parallel ranks.
        if self.tensor_parallel_size > 1:
            divide_layers(policy, self.device_mesh["tensor_parallel"])
        options: dict[str, Any] = {
            "mesh": self.device_mesh["data_parallel"],
            "mp_policy": MixedPrecisionPolicy(self.compute_dtype, reduce_dtype=torch.float32),
            "offload_policy": CPUOffloadPolicy() if self.cpu_offload else OffloadPolicy(),
            "reshard_after_forward": self.reshard_after_forward,
        }
        # A unit of FSDP is what is gathered at a time: each layer, the embedding, and what is left with the root.
        for layer in policy.base_model.layers:  # type: ignore[union-attr]
            fully_shard(layer, **options)
        if not policy.config.tie_word_embeddings:  # a tied one is needed with the head: it stays with the root
            fully_shard(policy.get_input_embeddings(), **options)
        fully_shard(root, **options)
        # Only now is memory allocated, and only for shards: no rank ever holds the whole model.
        materialize(policy, torch.device("cpu") if self.cpu_offload else self.root_device)
        read_shards(policy, folder)

    def export(self, policy: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, folder: str | Path) -> None:
        """Write the policy as a plain Hugging Face folder; every rank calls this, rank 0 writes."""
        export_shards(policy, tokenizer, folder, self.export_dtype, self.root_device, self.is_global_zero)

    def save_checkpoint(self, checkpoint: dict[str, Any], filepath: str | Path, storage_options: Any = None) -> None:
        """Write a folder of shards; it takes its name only when every rank's part is there."""
        path = Path(self.broadcast(filepath))
        partial = path.with_name(path.name + PARTIAL)
        try:
            with replacing(path) if self.is_global_zero else nullcontext(partial):
                super().save_checkpoint(checkpoint, partial, storage_options)
                self.barrier()
        except CheckpointException as error:  # all ranks get it, whichever failed
            raise refused(path, next(iter(error.failures.values()))[0]) from error
        self.barrier()

    def load_checkpoint(self, checkpoint_path: str | Path, weights_only: bool | None = None) -> dict[str, Any]:
        check_whole(Path(checkpoint_path))
        return super().load_checkpoint(checkpoint_path, weights_only)

    @contextmanager
    def other_weights(self, policy: PreTrainedModel, folder: str | Path) -> Iterator[None]:
        """Swap in the weights of `folder`; the policy's own shards wait in host memory."""
        own = {name: local(value).to("cpu", copy=True) for name, value in policy.named_parameters()}
        read_shards(policy, folder)
        try:
            yield
        finally:
            with torch.no_grad():
                for name, value in policy.named_parameters():  # in place: the optimizer holds these very tensors
                    local(value).copy_(own[name])


def divide_layers(policy: PreTrainedModel, mesh: DeviceMesh) -> None:
    """Tensor parallelism: divide every layer over the ranks of `mesh`, by attention heads and the MLP's inner width."""
    heads = policy.config.num_key_value_heads
    if heads % mesh.size():
        raise PolicyError(
            f"trainer.strategy.tensor_parallel_size is {mesh.size()}, and the model has {heads} key-value heads: it "
            "must divide them"
        )
    if any(".lora_" in name for name, _ in policy.named_parameters()):
        raise PolicyError("adapters cannot be divided: leave model.lora or tensor_parallel_size out")
    plan = {**{name: ColwiseParallel() for name in COLUMNS}, **{name: RowwiseParallel() for name in ROWS}}
    for layer in policy.base_model.layers:  # type: ignore[union-attr]
        parallelize_module(layer, mesh, plan)  # type: ignore[arg-type]


def materialize(policy: PreTrainedModel, device: torch.device) -> None:
    """Allocate the shards, and initialize what no file holds: rotary frequencies and new adapters."""
    policy.to_empty(device=device)
    # A buffer that is not in the state dict: `to_empty` left it uninitialized.
    rotary = policy.base_model.rotary_emb
    policy.base_model.rotary_emb = type(rotary)(policy.config).to(device)  # type: ignore[operator]
    for name, value in policy.named_parameters():
        if ".lora_" in name:  # as peft does: A random, B zero, so that B A = 0 and the policy is unchanged at first
            whole = torch.zeros(value.shape)
            if ".lora_A." in name:
                nn.init.kaiming_uniform_(whole, a=5**0.5)
            assert isinstance(value, DTensor)
            with torch.no_grad():  # distributed from rank 0, so that the shards are of one random tensor
                value.copy_(distribute_tensor(whole.to(device), value.device_mesh, value.placements))


def read_shards(policy: PreTrainedModel, folder: str | Path) -> None:
    """Read this rank's shard of every parameter, and nothing else, from the safetensors files of `folder`."""
    folder = check_folder(folder)
    if not list(folder.glob("*.safetensors")):
        raise PolicyError(f"{folder} has no safetensors files, which shards are read from: save it in that format")
    state = {plain_name(name): value for name, value in policy.named_parameters() if ".lora_" not in name}
    try:
        dcp.load(state, storage_reader=dcp.HuggingFaceStorageReader(str(folder)))
    except (CheckpointException, *UNREADABLE) as error:
        raise PolicyError(f"{folder}: its weights cannot be read in shards: {one_line(error)}") from error
    broken = [name for name, value in state.items() if not bool(local(value).isfinite().all())]
    if found := everyones(broken):
        raise not_finite(found[0], folder)


def everyones(names: list[str]) -> list[str]:
    """The names of all ranks."""
    found: list[list[str]] = [[] for _ in range(dist.get_world_size())]
    dist.all_gather_object(found, names)
    return [name for some in found for name in some]


def local(value: Tensor) -> Tensor:
    """This rank's shard of a tensor."""
    value = value.detach()
    return value.to_local() if isinstance(value, DTensor) else value


def whole(value: Tensor, device: torch.device) -> Tensor:
    """The whole tensor, all-gathered on `device`: a collective, which every rank must call in the same order."""
    value = value.detach().to(device)
    return value.full_tensor() if isinstance(value, DTensor) else value


def gradient_norm(gradients: Sequence[Tensor]) -> Tensor:
    """The global norm of all gradients, however they are sharded."""
    # Tensors of one mesh in one operation; the norm of the groups' norms is the norm of all.
    norms = [torch.nn.utils.get_total_norm(group) for group in by_mesh(gradients)]
    return torch.stack([norm.full_tensor() if isinstance(norm, DTensor) else norm for norm in norms]).norm()


def by_mesh(tensors: Sequence[Tensor]) -> list[list[Tensor]]:
    """The tensors grouped by the ranks they are sharded over: one operation cannot mix DTensors of several meshes."""
    groups: defaultdict[DeviceMesh | None, list[Tensor]] = defaultdict(list)
    for tensor in tensors:
        groups[tensor.device_mesh if isinstance(tensor, DTensor) else None].append(tensor)
    return list(groups.values())


def export_shards(
    policy: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    folder: str | Path,
    dtype: torch.dtype,
    device: torch.device,
    writes: bool,
    file_bytes: int = FILE_BYTES,
) -> None:
    """Write the policy as a plain Hugging Face folder; it appears under its name only when it is complete.

    Every rank calls this and takes part in gathering one tensor after the other; the one that `writes` never holds more
    than a file of them in host memory. Adapters are merged into the exported weights.

    Raises:
        PolicyError: a weight is not finite, on all ranks; nothing is written then.
        StorageError: the system refuses to store it.
    """
    weights = gathered(policy, folder, device)
    if not writes:
        exhaust(weights)
        return
    with replacing(folder) as partial:
        partial.mkdir()
        try:
            write_weights(weights, partial, dtype, file_bytes)
        finally:
            exhaust(weights)  # the other ranks take part in gathering all of them, whether or not there is room
        # What `save_pretrained` does beside the weights; it cannot do it itself, as it needs the whole model in memory.
        config = copy.deepcopy(policy.config)
        config.dtype, config.architectures = dtype, [type(policy).__name__]
        config.save_pretrained(str(partial))
        if policy.generation_config is not None:
            policy.generation_config.save_pretrained(str(partial))
        tokenizer.save_pretrained(str(partial))


def gathered(policy: PreTrainedModel, folder: str | Path, device: torch.device) -> Iterator[tuple[str, Tensor]]:
    """The weights on their way to `folder`, each whole on every rank; all ranks find alike that one is not finite."""
    for name, value in merged_weights(policy, lambda value: whole(value, device)):
        check_finite(name, value, folder)
        # A tied head is the embedding under a second name; safetensors would store it twice.
        if not (policy.config.tie_word_embeddings and name == "lm_head.weight"):
            yield name, value


def exhaust(weights: Iterator[tuple[str, Tensor]]) -> None:
    for _ in weights:
        pass


def write_weights(weights: Iterable[tuple[str, Tensor]], folder: Path, dtype: torch.dtype, file_bytes: int) -> None:
    """Write safetensors files of at most `file_bytes` each, unless a tensor is larger, and their index."""
    held: dict[str, Tensor] = {}
    places: dict[str, str] = {}
    total = 0
    for name, value in weights:
        value = value.to("cpu", dtype).contiguous()
        if held and sum(map(_bytes, held.values())) + _bytes(value) > file_bytes:
            total += _write(held, folder, places)
        held[name] = value
    total += _write(held, folder, places)
    write_json(folder / "model.safetensors.index.json", {"metadata": {"total_size": total}, "weight_map": places})


def _bytes(value: Tensor) -> int:
    return value.numel() * value.element_size()


def _write(held: dict[str, Tensor], folder: Path, places: dict[str, str]) -> int:
    """Write the tensors to the folder's next file, record it in `places`, and clear `held`; the number of bytes."""
    name = f"model-{len(set(places.values())) + 1:05d}.safetensors"
    save_file(held, folder / name, {"format": "pt"})
    places |= dict.fromkeys(held, name)
    written = sum(map(_bytes, held.values()))
    held.clear()
    return written
