"""Data that ships inside the package: the bundled model with its training script."""
