"""Settings judged side by side on real bars: what `default` rests on. Nothing imports it."""
