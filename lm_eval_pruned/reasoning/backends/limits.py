"""Tuning constants of the backends: memory, batches and queues. None of them changes a text."""

# Share of the free memory for the KV cache and logits of a batch. The rest is for activations, for the copy of a layer
# while a batch is rebuilt, and for other processes.
MEMORY_SHARE = 0.7

# Copies of the float32 logits in memory while a token is sampled: as they are, warped, and with noise.
LOGITS_COPIES = 4

# Tokens of the shorter of two texts on which the bytes of a KV cache are measured, and of that on which it is tried.
PROBE_TOKENS = 16

# The most that float32 logits of a text may change next to a longer one: root mean square, as a share of their standard
# deviation. Rounding makes 1e-5 in SmolLM2-135M, however much is pruned, and wrong positions or masks make about 1. In
# bfloat16 rounding makes 0.1, and 0.6 where 90 % are pruned, so that logits are compared in float32 only.
MOST_ROUNDING = 0.2

# Room to grow of a KV cache, as a share of its tokens, and its bounds in tokens. A full cache is copied, so more room
# means fewer copies and more memory.
ROOM_SHARE = 1 / 16
MIN_ROOM = 16
MAX_ROOM = 256

# Tokens that are prefilled in one pass, padding included: as many as keep a GPU busy, and a bound on the memory of
# activations. A longer prompt is read at once.
PREFILL_TOKENS = 16384

# A batch is rebuilt without its finished sequences once they are this share of it; rebuilding copies the KV cache.
FINISHED_SHARE = 0.25

# Forced text of at most so many tokens is read one token a step, while the other sequences of the batch generate; the
# prefill of a new batch is faster for a longer text.
MAX_FORCED_STEPS = 64

# Sequences handed to a vLLM engine, as a multiple of `max_num_seqs`: enough that it has the next one when one finishes,
# and few enough that the answer to a finished trace does not queue after all other traces.
QUEUE_FACTOR = 1.25
