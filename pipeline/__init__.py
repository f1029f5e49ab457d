"""The TFX pipeline: configuration, wiring, components and runners."""
