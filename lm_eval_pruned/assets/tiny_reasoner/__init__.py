"""tiny-reasoner: a Qwen3 model of one million parameters that solves chains of arithmetic step by step."""
