"""One line for each argument: the help of the command line, and the source of docs/arguments.md."""

from __future__ import annotations

from collections.abc import Mapping

DESCRIPTIONS: Mapping[str, str] = {
    "method": "how weights are scored",
    "alloc": "how the sparsity is spread over the blocks, or a .json list of one sparsity a block",
    "sparsity": "fraction of the prunable weights removed, 0 <= s < 1; width: of the channels; reap: of the experts",
    "pattern": "unstructured, or N:M such as 2:4: the N highest scores of every M neighbours in a row stay",
    "scope": "which Linears are pruned",
    "exclude": "regular expression: matrices whose names match anywhere are not pruned",
    "num_blocks": "shortgpt, angular, greedy, reverse, random-blocks: blocks to drop, instead of sparsity",
    "blocks": "shortgpt and others: the blocks to drop, counted from 0, such as 16+17 or 16-19; nothing is calibrated",
    "compare": "rank scores within each row or the whole matrix; auto is the method's own choice",
    "propagate": "which activations flow on during calibration",
    "calib": "calibration text: c4, pg19, traces (the model's own chains of thought) or traces:FILE.jsonl, a .jsonl "
    "with a text field, a .npy of token ids, or a hub data set id",
    "calib_samples": "calibration windows",
    "calib_seqlen": "tokens a window, at most the model's context",
    "calib_seed": "seed of the choice of windows",
    "calib_tokens": "with calib=traces: count all tokens, or only those that the model wrote after a prompt",
    "random_seed": "random, random-blocks: seed",
    "greedy_by": "greedy: perplexity of the calibration text, or KL divergence from the dense model along it",
    "owl_m": "owl: an outlier is this many times the mean score",
    "owl_lambda": "owl: half of the spread of the sparsities",
    "alphapruning_epsilon": "alphapruning: half of the spread of the relative sparsities",
    "dlp_alpha": "dlp: half of the spread of the sparsities",
    "arithmetic_slope": "arithmetic: sparsity of a block minus that of the block before it",
    "search_evaluations": "search: lists of sparsities that are tried, one prefill of the held-out windows each",
    "search_seed": "search: seed of the candidates",
    "layerif_min": "layerif: smallest relative sparsity",
    "layerif_max": "layerif: largest relative sparsity",
    "layerif_direction": "layerif: protect or prune the high scores",
    "layerif_groups": "layerif: attention and MLP each to its own mean, or one score a block",
    "layerif_scores": "layerif: a .npy of scores to use instead of computing them",
    "masks": "a mask file, or a folder or hub id with one: its masks are applied, and nothing is calibrated",
    "preset": "paper: what the paper's code did where it differs from the default",
    "thinking": "thinking markers; auto reads the chat template",
    "auto_chat_template": "wrap budgeted prompts in the chat template where the harness has not",
    "share_traces": "think once for all budgets of a question, and not anew for each",
    "artifacts": "folder of the pruning-artifact cache, or off",
    "responses": "folder of the response store, or off",
}
