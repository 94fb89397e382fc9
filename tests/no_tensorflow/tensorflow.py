"""First on the path of a process, it hides TensorFlow."""

raise ModuleNotFoundError("TensorFlow is hidden from this process", name="tensorflow")
