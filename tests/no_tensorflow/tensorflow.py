"""First on the path of a process, it hides TensorFlow."""

raise ImportError("TensorFlow is hidden from this process")
