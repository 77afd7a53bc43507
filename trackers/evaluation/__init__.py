"""Run trackers over annotated sequences, keep their results, score and compare them."""
