"""From bars to samples: price-volume features, labels, standardized lookback blocks."""
