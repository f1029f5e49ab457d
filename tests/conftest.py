import os

# Read once, when TensorFlow is imported: tests and the processes they start use Keras 2, as we do.
os.environ.setdefault("TF_USE_LEGACY_KERAS", "1")
