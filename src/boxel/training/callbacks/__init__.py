"""What accompanies a training run: checkpoints, progress, metrics and pictures."""
