"""What a training tells and keeps on its way: checkpoints, progress, metrics, pictures."""
