"""Logistic regression on one number, by Newton's method."""

from __future__ import annotations

import torch


def fit_logistic(ratios: torch.Tensor, labels: torch.Tensor) -> tuple[float, float]:
    """Scale and offset of the logistic regression of ``labels`` on ``ratios``, by Newton's method."""
    features = torch.stack([ratios, torch.ones_like(ratios)], dim=1).double()
    weights = torch.tensor([0.1, 0.0], dtype=torch.float64)
    for _ in range(50):
        p = torch.sigmoid(features @ weights)
        gradient = features.T @ (p - labels.double())
        hessian = features.T @ (features * (p * (1 - p))[:, None]) + 1e-6 * torch.eye(2, dtype=torch.float64)
        weights = weights - torch.linalg.solve(hessian, gradient).clamp(-1, 1)
    return float(weights[0]), float(weights[1])
