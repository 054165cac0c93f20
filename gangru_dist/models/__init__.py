"""Networks and losses as plain torch."""
