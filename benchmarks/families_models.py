# ruff: noqa: E501 - a table: a family a line
"""The families and variants of benchmarks/families.py, as configs of tiny random models.

Not a list that psr reads: which of these are right and which are refused is what its own check decides.
"""

from typing import Any

BASE: dict[str, Any] = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "max_position_embeddings": 96,
    "initializer_range": 0.3,
}
WINDOW = {"sliding_window": 8}
MOE = {"num_local_experts": 4, "num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 32}
MLA = {
    "q_lora_rank": None, "kv_lora_rank": 16, "qk_nope_head_dim": 8, "qk_rope_head_dim": 4, "v_head_dim": 8,
    "num_key_value_heads": 4, "n_routed_experts": 4, "n_shared_experts": 1, "num_experts_per_tok": 2, "n_group": 1,
    "topk_group": 1, "moe_intermediate_size": 32, "first_k_dense_replace": 1, "head_dim": 4,
}  # fmt: skip
YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 24, "rope_theta": 1e4}
LLAMA3 = {
    "rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
    "original_max_position_embeddings": 24, "rope_theta": 1e4,
}  # fmt: skip
LONGROPE = {
    "rope_type": "longrope", "short_factor": [1.0] * 4, "long_factor": [4.0] * 4, "factor": 4.0,
    "original_max_position_embeddings": 24, "rope_theta": 1e4,
}  # fmt: skip
SMALL = {name: value for name, value in BASE.items() if name != "head_dim"}
GPT = {"n_embd": 32, "n_layer": 3, "n_head": 4, "n_positions": 96, "initializer_range": 0.3}

FAMILIES: dict[str, tuple[str, dict[str, Any]]] = {
    "Llama": ("llama", BASE),
    "Llama, tied": ("llama", {**BASE, "tie_word_embeddings": True}),
    "Llama, llama3 RoPE": ("llama", {**BASE, "rope_parameters": LLAMA3}),
    "Llama, YaRN": ("llama", {**BASE, "rope_parameters": YARN}),
    "Llama, dynamic NTK": ("llama", {**BASE, "rope_parameters": {"rope_type": "dynamic", "factor": 2.0, "rope_theta": 1e4}}),
    "Llama, linear RoPE": ("llama", {**BASE, "rope_parameters": {"rope_type": "linear", "factor": 2.0, "rope_theta": 1e4}}),
    "Llama, biases": ("llama", {**BASE, "attention_bias": True, "mlp_bias": True}),
    "Qwen2": ("qwen2", BASE),
    "Qwen2, window": ("qwen2", {**BASE, **WINDOW, "use_sliding_window": True, "max_window_layers": 1}),
    "Qwen3": ("qwen3", BASE),
    "Mistral": ("mistral", {**BASE, "sliding_window": None}),
    "Mistral, window": ("mistral", {**BASE, **WINDOW}),
    "Ministral, window": ("ministral", {**BASE, **WINDOW, "layer_types": ["sliding_attention", "full_attention"] * 2, "num_hidden_layers": 4}),
    "Gemma": ("gemma", BASE),
    "Gemma 2": ("gemma2", {**BASE, **WINDOW, "final_logit_softcapping": 3.0, "attn_logit_softcapping": 2.0, "query_pre_attn_scalar": 8}),
    "Gemma 3": ("gemma3_text", {**BASE, **WINDOW, "sliding_window_pattern": 2, "query_pre_attn_scalar": 8}),
    "Gemma 3, soft-caps": ("gemma3_text", {**BASE, **WINDOW, "final_logit_softcapping": 3.0, "query_pre_attn_scalar": 8}),
    "Phi": ("phi", {**BASE, "partial_rotary_factor": 0.5}),
    "Phi-3": ("phi3", {**BASE, "sliding_window": None}),
    "Phi-3, window": ("phi3", {**BASE, **WINDOW}),
    "Phi-3, LongRoPE": ("phi3", {**BASE, "rope_parameters": LONGROPE}),
    "OLMo": ("olmo", BASE),
    "OLMo-2": ("olmo2", BASE),
    "OLMo-3": ("olmo3", {**BASE, **WINDOW, "num_hidden_layers": 4}),
    "Granite": ("granite", {**BASE, "logits_scaling": 8.0, "residual_multiplier": 0.5, "attention_multiplier": 0.3, "embedding_multiplier": 3.0}),
    "Cohere": ("cohere", {**BASE, "logit_scale": 0.25}),
    "Cohere 2": ("cohere2", {**BASE, **WINDOW, "logit_scale": 0.25, "sliding_window_pattern": 2}),
    "StableLM": ("stablelm", BASE),
    "StableLM 2, parallel": ("stablelm", {**BASE, "use_parallel_residual": True, "qk_layernorm": True}),
    "SmolLM3": ("smollm3", {**BASE}),
    "SmolLM3, window": ("smollm3", {**BASE, **WINDOW, "use_sliding_window": True, "layer_types": ["sliding_attention", "full_attention", "sliding_attention"]}),
    "GLM": ("glm", {**BASE}),
    "GLM-4": ("glm4", {**BASE}),
    "Helium": ("helium", BASE),
    "Starcoder 2, window": ("starcoder2", {**BASE, **WINDOW}),
    "Nemotron": ("nemotron", BASE),
    "Arcee": ("arcee", BASE),
    "Apertus": ("apertus", BASE),
    "EXAONE 4": ("exaone4", {**BASE, **WINDOW, "sliding_window_pattern": 2}),
    "Hunyuan": ("hunyuan_v1_dense", BASE),
    "ERNIE 4.5": ("ernie4_5", BASE),
    "Seed-OSS": ("seed_oss", BASE),
    "BitNet": ("bitnet", BASE),
    "Persimmon": ("persimmon", BASE),
    "GPT-2": ("gpt2", {**GPT, "resid_pdrop": 0.1, "attn_pdrop": 0.1, "embd_pdrop": 0.1}),
    "GPT-NeoX": ("gpt_neox", {**BASE, "rotary_pct": 0.5}),
    "GPT-BigCode": ("gpt_bigcode", {**GPT, "n_inner": 64}),
    "Falcon": ("falcon", {**SMALL, "alibi": False, "new_decoder_architecture": False, "multi_query": True}),
    "Falcon, ALiBi": ("falcon", {**SMALL, "alibi": True, "new_decoder_architecture": False, "multi_query": False}),
    "BLOOM": ("bloom", {"hidden_size": 32, "n_layer": 3, "n_head": 4, "initializer_range": 0.3}),
    "MPT": ("mpt", {"d_model": 32, "n_layers": 3, "n_heads": 4, "max_seq_len": 96, "initializer_range": 0.3}),
    "GPT-J": ("gptj", {**GPT, "rotary_dim": 4}),
    "CodeGen": ("codegen", {**GPT, "rotary_dim": 4}),
    "GPT-Neo, local": ("gpt_neo", {"hidden_size": 32, "num_layers": 2, "num_heads": 4, "max_position_embeddings": 96, "attention_types": [[["global", "local"], 1]], "window_size": 8, "intermediate_size": 64, "initializer_range": 0.3}),
    "OPT": ("opt", {"hidden_size": 32, "word_embed_proj_dim": 32, "ffn_dim": 64, "num_hidden_layers": 3, "num_attention_heads": 4, "max_position_embeddings": 96, "init_std": 0.3, "dropout": 0.1}),
    "Mixtral": ("mixtral", {**BASE, **MOE}),
    "Qwen2-MoE": ("qwen2_moe", {**BASE, **MOE, "shared_expert_intermediate_size": 32}),
    "Qwen3-MoE": ("qwen3_moe", {**BASE, **MOE}),
    "OLMoE": ("olmoe", {**BASE, **MOE}),
    "GPT-OSS": ("gpt_oss", {**BASE, **MOE, **WINDOW, "layer_types": ["sliding_attention", "full_attention", "sliding_attention"], "rope_parameters": YARN}),
    "Granite-MoE": ("granitemoe", {**BASE, **MOE, "logits_scaling": 8.0}),
    "Phi-MoE": ("phimoe", {**BASE, **MOE, "sliding_window": None}),
    "DBRX": ("dbrx", {"d_model": 32, "n_heads": 4, "n_layers": 3, "max_seq_len": 96, "attn_config": {"kv_n_heads": 2, "clip_qkv": 8, "rope_theta": 1e4}, "ffn_config": {"ffn_hidden_size": 32, "moe_num_experts": 4, "moe_top_k": 2, "hidden_size": 32}}),
    "DeepSeek-V2": ("deepseek_v2", {**BASE, **MLA}),
    "DeepSeek-V3": ("deepseek_v3", {**BASE, **MLA}),
    "GLM-4-MoE": ("glm4_moe", {**BASE, **{k: v for k, v in MLA.items() if "group" in k or "expert" in k or "first" in k or "moe" in k}}),
    "Llama 4": ("llama4_text", {**BASE, **MOE, "attention_chunk_size": 8, "intermediate_size_mlp": 64}),
    "Gemma 3n": ("gemma3n_text", {**BASE, **WINDOW, "num_hidden_layers": 5, "num_kv_shared_layers": 0, "vocab_size_per_layer_input": 41, "hidden_size_per_layer_input": 8, "laurel_rank": 4, "intermediate_size": [64] * 5, "activation_sparsity_pattern": [0.0] * 5}),
    "Gemma 4": ("gemma4_text", {**BASE, **WINDOW, "num_kv_shared_layers": 0, "vocab_size_per_layer_input": 41, "hidden_size_per_layer_input": 8, "global_head_dim": 16}),
    "Qwen3-Next": ("qwen3_next", {**BASE, **MOE, "shared_expert_intermediate_size": 32, "linear_num_value_heads": 4, "linear_num_key_heads": 2, "linear_key_head_dim": 8, "linear_value_head_dim": 8, "num_hidden_layers": 4}),
    "Mamba": ("mamba", {"hidden_size": 32, "num_hidden_layers": 2, "state_size": 8, "initializer_range": 0.3}),
    "Mamba 2": ("mamba2", {"hidden_size": 32, "num_hidden_layers": 2, "state_size": 8, "num_heads": 8, "head_dim": 8, "n_groups": 1}),
    "RecurrentGemma": ("recurrent_gemma", {**BASE, "lru_width": 32, "attention_window_size": 8}),
    "Jamba": ("jamba", {**BASE, **MOE, "attn_layer_period": 2, "attn_layer_offset": 1, "mamba_d_state": 8, "use_mamba_kernels": False}),
    "Falcon-H1": ("falcon_h1", {**BASE, "mamba_d_ssm": 32, "mamba_n_heads": 4, "mamba_d_head": 8, "mamba_d_state": 8, "mamba_n_groups": 1}),
    "LFM2": ("lfm2", {**BASE, "block_auto_adjust_ff_dim": False, "full_attn_idxs": [1]}),
    "DiffLlama": ("diffllama", BASE),
    "nanochat": ("nanochat", BASE),
    "BioGPT": ("biogpt", {"hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 4, "intermediate_size": 64, "max_position_embeddings": 96, "initializer_range": 0.3}),
    "VaultGemma": ("vaultgemma", {**BASE, **WINDOW, "query_pre_attn_scalar": 8, "final_logit_softcapping": 3.0, "attn_logit_softcapping": 2.0}),
}  # fmt: skip
