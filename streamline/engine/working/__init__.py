"""The worker: finding, claiming and calling up runs."""
