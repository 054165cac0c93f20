"""From a dense panel to a trained model: plain torch in the core, Ray in worker and launch."""
