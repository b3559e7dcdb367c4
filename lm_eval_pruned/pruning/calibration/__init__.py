"""Calibration: token windows, the activations they cause, and statistics of the inputs of each Linear."""
