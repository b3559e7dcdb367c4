"""A generated question: its text, its answer and what describes it, such as the number of steps."""

from __future__ import annotations

Question = dict[str, object]

# More solved examples than this make prompts longer than short contexts.
MAX_EXAMPLES = 16
