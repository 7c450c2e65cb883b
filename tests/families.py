"""Tiny random models that attend, scale or end otherwise than Llama does, for the tests."""

from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel

from psr.policy.folder import export_policy, new_policy
from psr.policy.tiny_tokenizer import build_tokenizer
from tests.conftest import TINY

UNTIED = {**TINY, "tie_word_embeddings": False, "head_dim": 8}
WINDOW = {"sliding_window": 6}
EXPERTS = {"num_local_experts": 4, "num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 32}
LATENT = {
    **EXPERTS, "q_lora_rank": None, "kv_lora_rank": 16, "qk_nope_head_dim": 8, "qk_rope_head_dim": 4, "v_head_dim": 12,
    "num_key_value_heads": 4, "head_dim": 4, "n_routed_experts": 4, "n_shared_experts": 1, "n_group": 1,
    "topk_group": 1, "first_k_dense_replace": 1,
}  # fmt: skip
ROPE = {"rope_type": "default", "rope_theta": 1e4}
GPT = {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 96, "initializer_range": 0.3}

RIGHT: dict[str, tuple[str, dict[str, Any]]] = {
    "mistral": ("mistral", {**UNTIED, **WINDOW}),
    "qwen2": ("qwen2", {**UNTIED, **WINDOW, "use_sliding_window": True, "max_window_layers": 1}),
    "phi3": ("phi3", {**UNTIED, **WINDOW}),
    "gemma2": (
        "gemma2",
        {**UNTIED, **WINDOW, "final_logit_softcapping": 3.0, "attn_logit_softcapping": 2.0, "query_pre_attn_scalar": 8},
    ),
    "gemma3": ("gemma3_text", {**UNTIED, **WINDOW, "sliding_window_pattern": 2, "query_pre_attn_scalar": 8}),
    "olmo3": ("olmo3", {**UNTIED, **WINDOW, "layer_types": ["sliding_attention", "full_attention"]}),
    "gpt_oss": ("gpt_oss", {**UNTIED, **EXPERTS, **WINDOW, "rope_parameters": ROPE}),
    "granite": ("granite", {**UNTIED, "logits_scaling": 8.0, "residual_multiplier": 0.5}),
    "cohere": ("cohere", {**UNTIED, "logit_scale": 0.25}),
    "stablelm": ("stablelm", UNTIED),
    "gpt2": ("gpt2", {**GPT, "resid_pdrop": 0.2, "attn_pdrop": 0.2, "embd_pdrop": 0.2}),
    "mixtral": ("mixtral", {**UNTIED, **EXPERTS}),
    "deepseek_v3": ("deepseek_v3", {**UNTIED, **LATENT}),
}  # fmt: skip
"""Families whose models are trained and served as what they are, each with what sets it apart."""

REFUSED: dict[str, tuple[str, dict[str, Any], str]] = {
    "bloom": ("bloom", {"hidden_size": 32, "n_layer": 2, "n_head": 4}, "attention interface"),
    "gptj": ("gptj", {**GPT, "rotary_dim": 4}, "attention interface"),
    "llama4": ("llama4_text", {**UNTIED, **EXPERTS, "attention_chunk_size": 8}, "is another one"),
    "recurrent_gemma": ("recurrent_gemma", {**TINY, "lru_width": 32, "attention_window_size": 8}, "differ"),
    "lfm2": ("lfm2", {**TINY, "full_attn_idxs": [1], "block_auto_adjust_ff_dim": False}, "differ"),
}
"""Families that psr would compute wrongly, and a word of the reason."""


def make_model(architecture: str, settings: dict[str, Any], seed: int = 0) -> PreTrainedModel:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = new_policy(architecture, settings, build_tokenizer()).eval()
        for name, value in model.named_parameters():
            if "sinks" in name:  # zeros at first, which would hide half of what they do
                nn.init.normal_(value)
    return model


def save_model(folder: Path, architecture: str, settings: dict[str, Any], seed: int = 0) -> Path:
    export_policy(make_model(architecture, settings, seed), build_tokenizer(), folder)
    return folder
