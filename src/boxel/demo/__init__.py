"""The demos: `photos` labels the bundled photographs, `scenes` trains on generated scenes (PyTorch)."""
