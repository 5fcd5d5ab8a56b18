"""The workloads of docs/performance.md, each measured against the database's own speed in the same run.

``python -m benchmarks`` prints a table and fails under a floor; ``--smoke`` runs everything once, small, without goals.
"""
