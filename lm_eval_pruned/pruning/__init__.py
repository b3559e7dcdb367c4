"""Pruning of a model: calibration statistics, scores, masks, and the loop over the decoder blocks."""
