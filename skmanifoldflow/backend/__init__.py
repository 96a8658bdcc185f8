"""PyTorch side of the package: bijections, base distributions, losses and the training loop."""
