"""What a job computes, as events, and the sinks: console, TensorBoard, MLflow, callbacks."""
