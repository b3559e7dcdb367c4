"""Statistics of paired runs: tests, confidence intervals, power and multiple comparisons."""
