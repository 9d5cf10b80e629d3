"""TensorFlow's file formats in Python and NumPy, without TensorFlow."""
