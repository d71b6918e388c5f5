"""Parts of `benchmarks/studies.py`: tasks, tables of runs, studies on them, what people write by hand, measures."""
