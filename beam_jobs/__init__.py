"""Prediction with a pushed model on Apache Beam, in batches and in streams."""
