"""What may pass: pure functions that return verdicts, without TFX."""
