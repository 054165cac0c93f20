"""GAN_GRU stock-selection factors, retrained and scored on a Ray cluster."""

__version__ = "0.1.0"
