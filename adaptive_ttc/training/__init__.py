"""Verifiers from a policy and its own graded samples: data, batches, training, figures on held-out problems, cards."""
