"""The systems: each a package of its own, all with torchvision's detection interface."""
