"""tiny-reasoner: a Qwen3 in miniature that solves chains of arithmetic by writing the chain out."""
