"""Price-volume features: functions of an asset's bars up to the day."""
