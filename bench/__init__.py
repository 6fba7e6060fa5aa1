"""The benchmarks: `make bench`. What is measured and how to read it: docs/bench.md."""
