"""Networks and losses as plain torch (SPEC 5)."""
