"""When something recurs: rules, wall clocks and zones, and the schedules that are stored."""
