"""A vendor's bars: found, read, mapped to our columns, checked."""
