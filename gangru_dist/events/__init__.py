"""Sends what jobs compute to where people look: TensorBoard, MLflow, users' own callbacks."""
