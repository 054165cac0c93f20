"""Price-volume features: functions of one asset's past and present bars (SPEC 2)."""
