"""What jobs compute, told to where people look: TensorBoard, MLflow, callbacks of one's own."""
