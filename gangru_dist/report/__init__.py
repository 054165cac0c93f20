"""Tables and pictures -> one HTML page; no torch, no Ray."""
