"""Figures, cross-sections and the trading calendar as functions of arrays."""
