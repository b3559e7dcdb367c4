"""Keep masks: which weights of a matrix stay, and how a mask is stored and applied."""
