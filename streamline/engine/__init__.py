"""Driving runs: starting, claiming, executing, recovering them, and what handlers can ask for."""

import logging

from streamline.telemetry import Discretion

# However a record comes about, no value leaves by it.
for _name in ("streamline.bus", "streamline.engine", "streamline.store"):
    logging.getLogger(_name).addFilter(Discretion())
