"""Speed of each stage beside the physical ceiling of the machine: `python -m benchmarks.<script>`."""
