"""Images from where they lie: listed without TensorFlow, read by index, damaged ones replaced."""
