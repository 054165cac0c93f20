"""Evaluation of a factor table against the market: tables in, tables out; no torch, no Ray."""
