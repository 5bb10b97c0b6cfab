"""What is measured, as rows that anyone can run (`python -m benchmarks`), and experiments with a command of their own."""
