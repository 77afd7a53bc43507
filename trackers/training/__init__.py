"""Training of the trackers: data, losses, distillation, and one loop for every stage."""
