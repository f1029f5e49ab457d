"""TFX components of our own: each a thin executor over a pure function elsewhere."""
