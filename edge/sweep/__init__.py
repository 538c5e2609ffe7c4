"""A sweep: every model in every way that is asked for, each exported, judged, and predicted for every device."""
