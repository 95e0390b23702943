"""What every package may use: errors, progress, files, devices, configuration."""
