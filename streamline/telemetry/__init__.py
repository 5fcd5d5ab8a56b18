"""What the engine tells of itself: spans, measurements and the fields of log records; alone knows OpenTelemetry."""

from streamline.telemetry.discretion import Discretion, discreet_message
from streamline.telemetry.measuring import Meters
from streamline.telemetry.providers import TELEMETRY
from streamline.telemetry.queue_depth import SeenQueue, Waiting
from streamline.telemetry.run_fields import SPEAKING_OF, RunFields, about
from streamline.telemetry.sections import NOTHING, Section, driving, starting
from streamline.telemetry.trace_context import carried, detached

__all__ = [
    "NOTHING",
    "SPEAKING_OF",
    "TELEMETRY",
    "Discretion",
    "Meters",
    "RunFields",
    "Section",
    "SeenQueue",
    "Waiting",
    "about",
    "carried",
    "detached",
    "discreet_message",
    "driving",
    "starting",
]
