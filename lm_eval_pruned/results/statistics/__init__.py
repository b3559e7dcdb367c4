"""Statistics of paired runs: tests, confidence intervals, power, and corrections for multiple comparisons."""
