"""Tiny random models of every causal family of transformers, built from its own config class."""

from __future__ import annotations

import re
from collections.abc import Mapping

import torch
from transformers import AutoModelForCausalLM, PretrainedConfig, PreTrainedModel
from transformers.models.auto.configuration_auto import CONFIG_MAPPING
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

VOCABULARY = 128
# Sizes by the name of a config field; the first pattern that matches decides.
SIZES: Mapping[str, int] = {
    r"(n_|unpadded_)?vocab(_size)?|n_words|vocab_size_per_layer_input": VOCABULARY,
    r"hidden_size|d_model|n_embd|dim|emb(ed)?_dim|embedding_size|lru_width|hidden_dim|dim_model": 32,
    r"num_hidden_layers|n_layers?|num_layers|decoder_layers|num_blocks": 4,
    r"num_attention_heads|n_heads?|num_heads|decoder_attention_heads": 4,
    r"num_key_value_heads|num_kv_heads": 2,
    r"head_dim|qk_nope_head_dim|v_head_dim|global_head_dim|attention_head_dim|swa_head_dim": 8,
    r"qk_rope_head_dim|rotary_dim": 4,
    r".*lora_rank|.*low_rank.*|index_head_dim|index_topk|indexer_budget": 16,
    r"index_n_heads|index_num_heads": 2,
    r"intermediate_size|intermediate_size_mlp|dense_intermediate_size|ffn_hidden_size|attention_hidden_size": 64,
    r"(decoder_)?ffn_dim|dim_ff|dff|[dn]_inner": 64,
    r"(moe|shared|.*_expert.*)_intermediate_size|expert_ffn_hidden_size": 24,
    r"num_experts|num_local_experts|n_routed_experts|moe_num_experts": 8,
    r"num_experts_per_tok(en)?|moe_topk|moe_k|top_k_experts|moe_top_k|topk": 2,
    r"n_group|topk_group|n_groups|mamba_n_groups|n_shared_experts|num_shared_experts|moe_num_shared_experts": 1,
    r"max_position_embeddings|n_positions|n_ctx|max_seq_len|max_window_layers": 256,
    r"sliding_window(_size)?|window_size|attention_window_size": 16,
    r"mamba_n_heads|mamba_num_heads|n_mamba_heads|time_step_rank|mamba_dt_rank": 4,
    r"mamba_d_head|mamba_head_dim": 16,
    r"mamba_d_state|state_size|ssm_state_size|mamba_state_size": 8,
    r"linear_num_key_heads|linear_num_heads|num_kv_shared_layers": 2,
    r"linear_num_value_heads": 4,
    r"linear_key_head_dim|linear_value_head_dim|linear_head_dim|hidden_size_per_layer_input": 8,
    r"first_k_dense_replace": 1,
}
# A special token beyond the small vocabulary becomes one inside it.
_TOKENS = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}

_AS_MANY_KEYS = {"num_key_value_heads": 4}
_LATENT = _AS_MANY_KEYS | {"head_dim": 4}
_DECODER = {"is_decoder": True}
_ALTERNATING = ["sliding_attention", "full_attention"] * 2
_HYBRID = ["linear_attention", "full_attention"] * 2
_HEAD = {"head_dim": 8}
# Fields whose defaults do not fit the sizes above, by model type.
FIELDS: Mapping[str, Mapping[str, object]] = {
    **dict.fromkeys(("axk1", "deepseek_v3", "youtu"), _LATENT),
    "kimi_linear": _LATENT | {"layer_types": _HYBRID},
    **dict.fromkeys(
        ("axk2", "deepseek_v32", "glm4_moe_lite", "glm_moe_dsa", "minicpm3", "sarvam_mla"),
        _AS_MANY_KEYS,
    ),
    **dict.fromkeys(
        ("bert", "bert-generation", "big_bird", "camembert", "data2vec-text", "electra", "ernie", "megatron-bert"),
        _DECODER,
    ),
    **dict.fromkeys(
        ("rembert", "roberta", "roberta-prelayernorm", "roc_bert", "roformer", "xlm-roberta", "xlm-roberta-xl"),
        _DECODER,
    ),
    **dict.fromkeys(("hunyuan_v1_dense", "hunyuan_v1_moe", "ministral"), _HEAD),
    **{
        name: {"layer_types": _HYBRID}
        for name in ("granitemoehybrid", "olmo_hybrid", "qwen3_5_text", "qwen3_5_moe_text", "qwen3_next")
    },
    "bailing_hybrid": _AS_MANY_KEYS | {"n_group": 2, "topk_group": 1, "layer_types": _HYBRID},
    "bamba": {"attn_layer_indices": [1, 3]},
    "cohere_compass_text": {
        "rope_parameters": {kind: {"rope_type": "default", "rope_theta": 1e4} for kind in set(_ALTERNATING)}
    },
    "dbrx": {
        "attn_config": {"kv_n_heads": 2, "rope_theta": 1e4, "clip_qkv": 8},
        "ffn_config": {"hidden_size": 32, "ffn_hidden_size": 24, "moe_num_experts": 8, "moe_top_k": 2},
    },
    "deepseek_v2": _AS_MANY_KEYS | {"topk_method": "greedy", "num_experts_per_tok": 2, "n_routed_experts": 8},
    "dots1": {"n_routed_experts": 8, "num_experts_per_tok": 2, "n_shared_experts": 1},
    "dots3_note_text": _AS_MANY_KEYS
    | {f"swa_{name}": 4 for name in ("num_attention_heads", "num_key_value_heads", "qk_rope_head_dim")}
    | {f"swa_{name}": 8 for name in ("q_lora_rank", "kv_lora_rank", "qk_nope_head_dim", "v_head_dim")}
    | {"swa_head_dim": 12},
    "falcon_h1": {"mamba_d_ssm": 64},
    "gemma3n_text": {
        "intermediate_size": 64,
        "layer_types": _ALTERNATING,
        "activation_sparsity_pattern": [0.5, 0.0] * 2,
    },
    "gemma4_text": {"layer_types": _ALTERNATING},
    "gemma4_unified_text": {"layer_types": _ALTERNATING},
    "gpt_neo": {"attention_types": [[["global", "local"], 2]]},
    "jetmoe": {"kv_channels": 8},
    "jamba": {"attn_layer_period": 2, "attn_layer_offset": 1},
    **{name: {"layer_types": ["conv", "full_attention"] * 2} for name in ("lfm2", "lfm2_moe", "lfm3")},
    "longcat_flash": _LATENT | {"num_layers": 2, "zero_expert_num": 4},
    "mamba2": {"head_dim": 16},
    "nemotron": _HEAD | {"num_key_value_heads": 2, "partial_rotary_factor": 0.5},
    "nemotron_h": {
        "num_hidden_layers": 6,
        "layers_block_type": ["linear_attention", "moe", "full_attention", "mlp", "linear_attention", "full_attention"],
    },
    "qwen4_exp_text": {
        "eos_token_id": 2,
        "indexer_n_heads": 2,
        "indexer_kv_heads": 1,
        "indexer_head_dim": 8,
        "indexer_budget": 16,
        "indexer_compress_ratio": 4,
        "hc_lowrank": 8,
        "ple_embed_dim": 8,
        "ple_layer_ids": [1, 2],
        "heads_per_ngram": 2,
        "ngram_vocab_size_base": 200,
        "make_ngram_vocab_size_divisible_by": 8,
        "split_ngram_parts": 2,
    },
    "reformer": _DECODER
    | {"axial_pos_embds_dim": [8, 24], "axial_pos_shape": [16, 16], "attn_layers": ["local", "lsh"] * 2}
    | {"num_buckets": 4},
    "xlm": {"causal": True, "emb_dim": 32},
    "xmod": _DECODER | {"default_language": "en_XX"},
    "zamba": {
        "layers_block_type": ["mamba", "mamba", "hybrid", "mamba", "hybrid"],
        "num_hidden_layers": 5,
        "attention_head_dim": 16,
        "attention_hidden_size": 64,
        "num_key_value_heads": 4,
    },
    "zamba2": {"layers_block_type": ["mamba", "hybrid"] * 2, "n_mamba_heads": 4},
    "zaya": {"num_experts_per_tok": 1, "router_hidden_size": 16},
}
# Families that are not tried, and why.
NOT_BUILT: Mapping[str, str] = {
    "blt": "reads bytes through several models of its own",
    "git": "writes captions, and has no loss without an image",
    "gemma4_assistant": "drafts for another model, whose keys and values it needs",
    "gemma4_unified_assistant": "drafts for another model, whose keys and values it needs",
}


def families() -> list[str]:
    """Return the model types that `AutoModelForCausalLM` of the installed transformers knows."""
    return list(MODEL_FOR_CAUSAL_LM_MAPPING_NAMES)


def class_name(family: str) -> str:
    """Return the name of the model class of a family."""
    name = MODEL_FOR_CAUSAL_LM_MAPPING_NAMES[family]
    return name if isinstance(name, str) else name[0]


def tiny_config(family: str) -> PretrainedConfig:
    """Return a config of a few thousand weights, with the structure that the defaults of the family describe."""
    kind = CONFIG_MAPPING[family]
    default = kind()
    inner = {
        name: {**_small(config), "model_type": config.model_type}
        for name in kind.sub_configs
        if isinstance(config := getattr(default, name, None), PretrainedConfig)
    }
    return kind(**{**inner, **_small(default)})


def tiny_model(family: str, *, seed: int = 0) -> PreTrainedModel:
    """Return a random model of a family in float32; every parameter, biases and gates too, has random values."""
    torch.manual_seed(seed)
    model: PreTrainedModel = AutoModelForCausalLM.from_config(tiny_config(family), dtype=torch.float32)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.normal_(0, 0.08, generator=generator)
            elif not parameter.any():
                parameter.normal_(0, 0.02, generator=generator)
    return model.eval()


def _small(config: PretrainedConfig) -> dict[str, object]:
    """Return the fields of a config that are made smaller, for its constructor."""
    given = FIELDS.get(config.model_type, {})
    values: dict[str, object] = {}
    for name, value in vars(config).items():
        small = next((size for pattern, size in SIZES.items() if re.fullmatch(pattern, name)), None)
        if isinstance(value, int) and not isinstance(value, bool) and small is not None:
            values[name] = small
        elif name in _TOKENS and isinstance(value, int) and value >= VOCABULARY:
            values[name] = _TOKENS[name]
        elif name == "eos_token_id" and isinstance(value, list):
            values[name] = [_TOKENS[name]]
    return {**values, **given}
