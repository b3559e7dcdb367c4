"""Answer extraction: find the final answer in a response."""
